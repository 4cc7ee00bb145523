// Sorts, copies and shows values. The page works without this script.

// Clicking a head sorts the table by its column; rows without a value are last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.className === "links") return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      const value = row => row.cells[column].dataset.value ?? "";
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    });
  });
}

// A button copies a command as it is, and a table with tabs, as spreadsheets read it.
function copies(element, what, text) {
  const button = document.createElement("button");
  button.className = "copies";
  button.textContent = `copy ${what}`;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(element);
      button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl+C";
    }
    setTimeout(() => { button.textContent = `copy ${what}`; }, 2000);
  });
  (element.closest(".scroll") ?? element).before(button);
}
for (const command of document.querySelectorAll("pre.copy"))
  copies(command, "command", () => command.textContent);
for (const table of document.querySelectorAll("table.sortable")) {
  const line = row => [...row.cells].map(cell => cell.textContent.trim()).join("\t");
  copies(table, "table", () => [...table.rows].map(line).join("\n"));
}

// Values under the pointer, at once; without this script browsers show the titles after a while.
const tip = document.createElement("div");
tip.className = "tip";
document.body.append(tip);
for (const element of document.querySelectorAll("td[title], svg .hover")) {
  const title = element.querySelector(":scope > title");
  const text = title ? title.textContent : element.title;
  title ? title.remove() : element.removeAttribute("title");
  element.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  element.addEventListener("pointermove", event => {
    tip.textContent = text;
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)}px`;
  });
}
