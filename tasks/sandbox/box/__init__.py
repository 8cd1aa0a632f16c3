"""What runs inside of the sandbox: imported there as the package `box`, with nothing of Rapid's beside it.

zygote      trusted: forks a fresh judge and a fresh candidate for each check, and ends them
judge       trusted: runs the tests, and asks the candidate for the value of each call
candidate   untrusted: the checked program; knows arguments, never what is expected
"""
