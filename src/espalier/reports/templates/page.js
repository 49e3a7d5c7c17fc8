// Draws the charts, sorts and filters tables, and lets two experiments be compared. Nothing is fetched.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const views = [];

  const fit = ({ view, place, wide }) => {
    if (wide && place.clientWidth > 0) view.width(Math.min(place.clientWidth, 860)).run();
  };

  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = data.charts[place.dataset.chart];
    const view = new vega.View(vega.parse(spec), { renderer: "svg", container: place, hover: true });
    const chart = { view, place, wide: Boolean(spec.autosize) && spec.autosize.type === "fit-x" };
    view.run();
    fit(chart);
    views.push(chart);
  }
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => views.forEach(fit), 120);
  });

  for (const select of document.querySelectorAll("select[data-compare]")) {
    const chart = views.find((one) => one.place.dataset.chart === select.dataset.compare);
    select.addEventListener("change", () => {
      chart.view.data("rows", data.layers[select.value]).run();
      chart.place.setAttribute("aria-label", select.value);
    });
  }

  for (const box of document.querySelectorAll("[data-listing]")) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    const search = box.querySelector("input");
    const filters = [...box.querySelectorAll("select[data-column]")];
    const status = box.querySelector("[role=status]");

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
      status.textContent = data.texts.shown.replace("{n}", `${shown} / ${rows.length}`);
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
    };
    for (const heading of box.querySelectorAll("thead th")) {
      heading.querySelector("button").addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const down = before === "none" ? heading.classList.contains("number") : before === "ascending";
        for (const one of box.querySelectorAll("thead th")) one.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(heading.cellIndex, down);
      });
    }
    search.addEventListener("input", filter);
    for (const one of filters) one.addEventListener("change", filter);
    filter();
  }
})();
