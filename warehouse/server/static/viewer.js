// What a page does beyond showing itself. Without this file every page still says all it has to say.
"use strict";

const readout = document.createElement("p");
readout.className = "readout";
readout.setAttribute("role", "status");
document.body.append(readout);
let marked = [];

/** Take the marks off the tokens and empty the read-out. */
function clearMarks() {
  for (const token of marked) token.classList.remove("at", "query", "key");
  marked = [];
  readout.textContent = "";
}

/** Mark a token and say its exact value. */
function tell(token) {
  const text = token.closest(".text");
  const tokens = [...text.querySelectorAll("span[title]")];
  clearMarks();
  token.classList.add("at");
  marked = [token];
  const position = Number(text.dataset.first) + tokens.indexOf(token);
  readout.textContent = `${token.title}  at ${position}  “${token.textContent}”`;
}

/** Mark the query and the key of a cell of a map in the text above it. */
function tellPair(cell) {
  const record = cell.closest(".record, main");
  const text = record.querySelector(".text");
  const tokens = text.querySelectorAll("span[title]");
  clearMarks();
  for (const [name, position] of [["query", cell.dataset.q], ["key", cell.dataset.k]]) {
    const token = tokens[Number(position) - Number(text.dataset.first)];
    if (token) {
      token.classList.add(name);
      marked.push(token);
    }
  }
  readout.textContent = cell.querySelector("title").textContent;
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest(".text span[title]");
  const cell = event.target.closest(".map rect");
  if (token) tell(token);
  else if (cell) tellPair(cell);
  else if (!document.activeElement.matches(".text")) clearMarks();
});

document.addEventListener("focusin", (event) => {
  if (event.target.matches(".text")) {
    const tokens = [...event.target.querySelectorAll("span[title]")];
    const strongest = tokens.reduce((a, b) => (Math.abs(b.title) > Math.abs(a.title) ? b : a), tokens[0]);
    if (strongest) tell(strongest);
  }
});

document.addEventListener("focusout", (event) => {
  if (event.target.matches(".text")) clearMarks();
});

/** Go to the neighbouring token with the arrow keys. */
function step(text, by) {
  const tokens = [...text.querySelectorAll("span[title]")];
  const next = tokens[tokens.findIndex((token) => token.classList.contains("at")) + by];
  if (next) {
    tell(next);
    next.scrollIntoView({ block: "nearest" });
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "Enter" && event.target.id === "sql") {
    event.target.form.requestSubmit();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const text = event.target.closest(".text");
  if (text && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    event.preventDefault();
    step(text, event.key === "ArrowRight" ? 1 : -1);
  } else if (event.key === "/") {
    event.preventDefault();
    document.getElementById("q").focus();
  } else if (event.key === "[" || event.key === "]") {
    document.querySelector(event.key === "[" ? "a[rel=prev]" : "a[rel=next]")?.click();
  }
});
