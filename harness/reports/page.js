"use strict";
// Without this script all of the page can be read. It adds three things: going through a schedule, printing
// what is closed, and copying a command.
for (const schedule of document.querySelectorAll(".schedule")) {
  const last = Number(schedule.dataset.steps);
  const controls = schedule.querySelector(".controls");
  const now = schedule.querySelector(".now");
  const steps = [...schedule.querySelectorAll("[data-step]")];
  const tables = [...schedule.querySelectorAll("[data-rows]")];
  let at = 0; // 0: the whole schedule
  const show = (wanted) => {
    at = Math.max(0, Math.min(last, wanted));
    for (const step of steps) {
      const number = Number(step.dataset.step);
      if (at === 0) delete step.dataset.when;
      else step.dataset.when = number < at ? "past" : number === at ? "now" : "later";
    }
    // The rows are those after the last step that has any.
    const shown = Math.max(...tables.map((each) => Number(each.dataset.rows)).filter((n) => n <= at), 0);
    for (const each of tables) each.hidden = at !== 0 && Number(each.dataset.rows) !== shown;
    const item = schedule.querySelector(`li[data-step="${at}"]`);
    now.textContent = at === 0 ? "" : `Step ${at} of ${last}: ${item.textContent}`;
    for (const button of controls.querySelectorAll("button")) {
      const go = button.dataset.go;
      // Not `disabled`, which would take the focus away from whoever pressed it, and the keys with it.
      button.setAttribute("aria-disabled", String((go === "back" && at <= 1) || (go === "next" && at === last)));
    }
  };
  const go = { first: () => show(1), back: () => show(at - 1), next: () => show(at + 1), last: () => show(last), all: () => show(0) };
  controls.hidden = false;
  controls.addEventListener("click", (event) => {
    const name = event.target.dataset.go;
    if (name) go[name]();
  });
  schedule.addEventListener("keydown", (event) => {
    const name = { ArrowRight: "next", ArrowDown: "next", ArrowLeft: "back", ArrowUp: "back", Home: "first", End: "last", Escape: "all" }[event.key];
    if (!name || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    go[name]();
  });
}
// On paper nothing can be opened: what is closed is printed open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
});
for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy the command ${command.textContent}`);
  button.addEventListener("click", async () => {
    const text = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch { // a page from disk may not be allowed to: select it, so that a key does it
      const range = document.createRange();
      range.selectNodeContents(text);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
  });
  command.append(button);
}
