// Typeset the LaTeX that the build wrote into elements of the class "math".
for (const element of document.querySelectorAll("span.math, div.math")) {
  katex.render(element.textContent, element, {
    displayMode: element.tagName === "DIV",
    throwOnError: false,
  });
}
