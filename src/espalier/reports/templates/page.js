// Sorts and filters tables, keeps the filters in the address, and offers each table as CSV. Nothing is fetched.
"use strict";
(() => {
  const narrow = window.matchMedia("(max-width: 70rem)").matches;
  const contents = document.querySelector(".side details");
  if (narrow && contents) contents.open = false;

  // A folded table is opened for printing, and when the address points into it.
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("main details")) one.open = true;
  });

  const download = (table) => {
    const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const value = (cell) => (cell.dataset.number === undefined ? cell.textContent.trim() : cell.dataset.number);
    const rows = [...table.rows].filter((row) => !row.hidden);
    const text = rows.map((row) => [...row.cells].map((cell) => quote(value(cell))).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${table.dataset.file}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  for (const table of document.querySelectorAll("table[data-file]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "csv";
    button.textContent = "CSV";
    button.addEventListener("click", () => download(table));
    table.parentElement.after(button);
  }

  const address = new URLSearchParams(location.search);
  const remember = (name, value) => {
    if (value === "") address.delete(name);
    else address.set(name, value);
    const query = address.toString();
    try {
      history.replaceState(null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
    } catch {
      // Some browsers forbid this for local files; the filters work all the same.
    }
  };

  for (const box of document.querySelectorAll("[data-listing]")) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    const search = box.querySelector("input");
    const filters = [...box.querySelectorAll("select[data-column]")];
    const status = box.querySelector("[role=status]");
    const headings = [...box.querySelectorAll("thead th")];
    const nameOf = (filter) => headings[filter.dataset.column].textContent.trim();

    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits =
          row.textContent.toLowerCase().includes(wanted) &&
          filters.every((one) => one.value === "" || row.cells[one.dataset.column].textContent === one.value.slice(1));
        row.hidden = !fits;
        shown += fits;
      }
      status.textContent = status.dataset.text.replace("{n}", `${shown} / ${rows.length}`);
      remember("search", search.value.trim());
      for (const one of filters) remember(nameOf(one), one.value.slice(1));
    };

    const key = (row, column) => {
      const cell = row.cells[column];
      if (!("number" in cell.dataset)) return cell.textContent;
      return cell.dataset.number === "" ? null : Number(cell.dataset.number);
    };
    const sort = (column, down) => {
      // Missing values come last in either direction.
      rows.sort((one, other) => {
        const [a, b] = [key(one, column), key(other, column)];
        if (a === null || b === null) return (a === null) - (b === null);
        return (typeof a === "number" ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
      });
      body.append(...rows);
      for (const one of headings) one.setAttribute("aria-sort", "none");
      headings[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    };
    for (const heading of headings) {
      heading.querySelector("button").addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const down = before === "none" ? heading.classList.contains("number") : before === "ascending";
        sort(heading.cellIndex, down);
        remember("sort", `${down ? "-" : ""}${heading.cellIndex}`);
      });
    }

    search.value = address.get("search") ?? "";
    for (const one of filters) {
      const value = `=${address.get(nameOf(one)) ?? ""}`;
      if ([...one.options].some((option) => option.value === value)) one.value = value;
    }
    const order = /^(-?)(\d+)$/.exec(address.get("sort") ?? "");
    if (order && Number(order[2]) < headings.length) sort(Number(order[2]), order[1] === "-");
    search.addEventListener("input", filter);
    for (const one of filters) one.addEventListener("change", filter);
    filter();
  }
})();
