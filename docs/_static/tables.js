// Tables on a phone (site.css): rows of words become cards, rows of numbers scroll beside their names.
const NUMBER = /^[\s\d.,e<≤≥–−+%×;/-]*$/;

for (const table of document.querySelectorAll("article table.docutils")) {
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.cells]);
  const cells = rows.flatMap((row) => row.slice(1));
  const numbers = cells.filter((cell) => NUMBER.test(cell.textContent)).length;
  const scrolls = heads.length > 4 && numbers > cells.length * 0.7;
  table.classList.add(scrolls ? "numbers" : "cards");
  for (const row of rows) {
    // Two columns explain themselves: a name, and a sentence about it
    if (heads.length > 2) row.forEach((cell, column) => (cell.dataset.head = heads[column] ?? ""));
  }
}
