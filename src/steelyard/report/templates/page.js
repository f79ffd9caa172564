"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  all("[hidden]").forEach((element) => { if (!element.matches(".tip")) element.hidden = false; });

  // Theme: the system's until the reader says otherwise.
  document.querySelector(".theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    try { localStorage.setItem("steelyard-theme", root.dataset.theme); } catch (error) { /* not remembered */ }
  });

  // A page may hold several studies: what is chosen in one leaves the others alone.
  const studyOf = (element) => element.closest("article.study") || document;

  // One setting and one kind of curve at a time.
  const show = (kind, value, study) => {
    all(`[data-show="${kind}"]`, study).forEach((button) => button.setAttribute("aria-pressed", button.dataset.value === value));
    all(`[data-${kind}]`, study).forEach((part) => part.classList.toggle("off", part.dataset[kind] !== value));
  };
  all("[data-show]").forEach((button) => {
    if (button.getAttribute("aria-pressed") === "true") {
      show(button.dataset.show, button.dataset.value, studyOf(button));
      button.parentElement.scrollLeft = button.offsetLeft;  // many settings scroll sideways on a phone
    }
    button.addEventListener("click", () => show(button.dataset.show, button.dataset.value, studyOf(button)));
  });

  // Highlight one method or task in every figure: while pointing, or for good after a click.
  const rule = document.head.appendChild(document.createElement("style"));
  const pins = new Map();
  const light = (kind, value, study) => {
    const key = `data-${kind}`, within = study === document ? "" : `#${study.id} `;
    rule.textContent = value === null ? ""
      : `${within}svg [${key}]:not([${key}="${value}"]){opacity:.13} ${within}svg path[${key}="${value}"]{stroke-width:3px}`
        + ` ${within}tr[${key}]:not([${key}="${value}"])>*{opacity:.35}`;
  };
  all("[data-light]").forEach((chip) => {
    const { light: kind, value } = chip.dataset, study = studyOf(chip);
    if (!pins.has(study)) pins.set(study, { m: null, t: null });
    const pinned = pins.get(study);
    chip.addEventListener("pointerenter", () => light(kind, value, study));
    chip.addEventListener("pointerleave", () => light(kind, pinned[kind], study));
    chip.addEventListener("click", () => {
      pinned[kind] = pinned[kind] === value ? null : value;
      all(`[data-light="${kind}"]`, study).forEach((other) => other.setAttribute("aria-pressed", other.dataset.value === pinned[kind]));
      light(kind, pinned[kind], study);
    });
  });

  // Read-out: the values of every line at the nearest epoch.
  const tip = document.querySelector(".tip");
  const clear = (chart) => { all(".readout", chart).forEach((part) => part.remove()); tip.hidden = true; };
  const make = (name, attributes) => {
    const element = document.createElementNS(document.querySelector("svg").namespaceURI, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return element;
  };
  const read = (chart, index) => {
    clear(chart);
    const epochs = chart.dataset.epochs.split(" ").map(Number);
    index = Math.min(Math.max(index, 0), epochs.length - 1);
    chart.dataset.at = index;
    const low = +chart.dataset.low, high = +chart.dataset.high, log = chart.dataset.log === "1", height = +chart.dataset.height;
    const share = epochs.length > 1 ? (epochs[index] - epochs[0]) / (epochs[epochs.length - 1] - epochs[0]) : 0.5;
    const x = `${100 * share}%`;
    const group = make("g", { class: "readout" });
    group.append(make("line", { x1: x, x2: x, y1: 0, y2: height }));
    const rows = [];
    all("path[data-y]", chart).forEach((line) => {
      const text = line.dataset.y.split(" ")[index], value = Number(text);
      if (!Number.isFinite(value)) return;
      const up = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      group.append(make("circle", { cx: x, cy: height * (1 - up), r: 3.2, class: line.getAttribute("class") + " at" }));
      rows.push({ value, text, line });
    });
    chart.append(group);
    rows.sort((a, b) => b.value - a.value);
    const dimmed = (line) => getComputedStyle(line).opacity < 1;
    const kept = rows.filter(({ line }) => !dimmed(line)).slice(0, 12);
    tip.replaceChildren();
    const title = tip.appendChild(document.createElement("b"));
    title.textContent = `epoch ${epochs[index]}`;
    for (const { text, line } of kept) {
      const row = tip.appendChild(document.createElement("div"));
      const swatch = row.appendChild(make("svg", { class: "swatch", viewBox: "0 0 18 8" }));
      swatch.append(make("path", { class: line.getAttribute("class"), d: "M0 4H18", "stroke-dasharray": line.getAttribute("stroke-dasharray") || "none" }));
      row.appendChild(document.createElement("span")).textContent = line.dataset.name;
      row.appendChild(document.createElement("i")).textContent = text.replace("-", "−");
    }
    if (rows.length > kept.length) tip.appendChild(document.createElement("div")).textContent = `and ${rows.length - kept.length} more`;
    tip.hidden = false;
    const box = chart.getBoundingClientRect(), wide = tip.offsetWidth, page = root.clientWidth;
    const spot = box.left + share * box.width;
    const left = spot + 14 + wide < page ? spot + 14 : spot - 14 - wide;
    tip.style.left = `${Math.max(4, Math.min(left, page - wide - 4)) + scrollX}px`;
    tip.style.top = `${box.top + scrollY + 4}px`;
  };
  all("svg.curves").forEach((chart) => {
    const epochs = chart.dataset.epochs.split(" ").map(Number);
    const nearest = (event) => {
      const box = chart.getBoundingClientRect();
      const epoch = epochs[0] + (event.clientX - box.left) / box.width * (epochs[epochs.length - 1] - epochs[0]);
      return epochs.reduce((best, value, index) => Math.abs(value - epoch) < Math.abs(epochs[best] - epoch) ? index : best, 0);
    };
    chart.addEventListener("pointermove", (event) => read(chart, nearest(event)));
    chart.addEventListener("pointerdown", (event) => read(chart, nearest(event)));
    chart.addEventListener("pointerleave", () => clear(chart));
    chart.addEventListener("blur", () => clear(chart));
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); read(chart, Number(chart.dataset.at ?? epochs.length - 1) + step); }
      if (event.key === "Escape") clear(chart);
    });
  });

  // Copy what stands beside. Pages opened from a file have no clipboard in some browsers: select the text instead.
  all(".copy").forEach((copy) => copy.addEventListener("click", async () => {
    const code = copy.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch (error) {
      getSelection().selectAllChildren(code);
      copy.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1600);
  }));

  // On paper everything is open.
  addEventListener("beforeprint", () => all("details").forEach((part) => { part.open = true; }));
})();
