"""What travels between Rapid's processes: messages, codec, transports and policy versions.

Imports none of Rapid's other packages, and neither torch, vllm, ray nor deepspeed, so that any
process can speak the protocol at the cost of pyzmq, msgpack and numpy.
"""
