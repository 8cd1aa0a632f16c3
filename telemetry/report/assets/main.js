"use strict";
// Builds every picture, and lets the reader choose light or dark.

buildCurves();
buildEvaluations();
buildStaleness();
buildLanes();
buildBrowser();
PICTURES.forEach((drawing) => drawing.fit());

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement.style;
  const isDark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.colorScheme = isDark ? "light" : "dark";
});
document.documentElement.dataset.ready = "yes";
