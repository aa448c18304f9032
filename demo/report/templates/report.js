// Filters of the gallery: one outcome, one kind, and a page of cards at a time. Without script all cards show.
(function () {
  "use strict";
  const PAGE = 24;
  const chosen = { outcome: "all", kind: "all" };
  let limit = PAGE;
  const cards = Array.from(document.querySelectorAll("#gallery .card"));
  const more = document.getElementById("more");
  const shown = document.getElementById("shown");

  function fits(card) {
    const outcome = chosen.outcome === "all" || card.dataset.outcome.split(" ").includes(chosen.outcome);
    return outcome && (chosen.kind === "all" || card.dataset.kind === chosen.kind);
  }

  function update() {
    let found = 0;
    for (const card of cards) {
      const visible = fits(card);
      card.hidden = !visible || found >= limit;
      found += visible ? 1 : 0;
    }
    const number = Math.min(found, limit);
    shown.textContent = found ? `${number} of ${found} questions shown` : "No question fits both filters.";
    more.hidden = found <= limit;
  }

  document.getElementById("filters").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-filter]");
    if (!button) return;
    const filter = button.dataset.filter;
    chosen[filter] = button.dataset.value;
    for (const other of document.querySelectorAll(`button[data-filter="${filter}"]`)) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    limit = PAGE;
    update();
  });
  more.addEventListener("click", () => { limit += 2 * PAGE; update(); });
  update();
})();
