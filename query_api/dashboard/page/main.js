// The page: a key, what is looked at, and the view that shows it.

import { go, link, onChange, read } from "./address.js";
import { onFreshness } from "./api.js";
import { bar } from "./bar.js";
import { h, replace } from "./dom.js";
import { enter } from "./enter.js";
import { freshnessLine } from "./freshness.js";
import { toggleHelp } from "./help.js";
import { choose, current, forget, projects } from "./keys.js";
import { failed, loading } from "./states.js";

const VIEWS = { logs: "Logs", usage: "Usage", failures: "Failures", health: "Health" };
// What goes along from view to view: where and when, and what was narrowed down.
const OF_A_VIEW = ["log", "sort", "by", "compare", "live", "letter", "reason"];

const top = document.getElementById("top");
const main = document.getElementById("main");
const line = freshnessLine();
let shown = null; // {view, project, mounted}

function start() {
  onChange(show);
  onFreshness(line.told);
  document.addEventListener("keydown", pressed);
  // The address is of what is looked at, not of places on the page.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  show();
}

/** Shows what the address says. */
function show() {
  const { view, params } = read();
  const named = params.get("project");
  if (!projects().length || (named !== null && !choose(named))) return showEntry(named);
  const { project } = current();
  if (named === null) {
    params.set("project", project);
    return go(view, params, { replace: true });
  }
  if (!Object.hasOwn(VIEWS, view)) return go("logs", params, { replace: true });
  document.title = `${VIEWS[view]} · ${project} · toolledger`;
  keepingFocus(() => replace(top, heading(view, params, project), bar(view, params), line.element));
  if (shown?.view === view && shown.project === project) shown.mounted?.update(params);
  else mount(view, params, project);
  line.follow();
}

async function mount(view, params, project) {
  shown?.mounted?.unmount();
  const mine = (shown = { view, project, mounted: null });
  replace(main, loading());
  let module;
  try {
    module = await import(`./views/${view}.js`);
  } catch {
    if (mine === shown) replace(main, failed({ status: 0, message: "A part of this page could not be loaded." }, () => location.reload(), { byItself: false }));
    return;
  }
  if (mine !== shown) return;
  replace(main);
  mine.mounted = module.mount(main);
  // The address may have changed while the part was loaded.
  mine.mounted.update(read().params);
}

/** Draws the top anew; who was at one of its controls stays there. */
function keepingFocus(draw) {
  const named = (element) => element.getAttribute("aria-label") ?? element.textContent;
  const held = top.contains(document.activeElement) ? document.activeElement : null;
  draw();
  if (held) ([...top.querySelectorAll(held.tagName)].find((each) => named(each) === named(held)) ?? main).focus();
}

function showEntry(project) {
  const adding = project === null && projects().length > 0;
  const back = () => {
    if (!adding) go(read().view, { project: current().project });
    if (shown === null) show();
  };
  shown?.mounted?.unmount();
  shown = null;
  line.rest();
  document.title = "toolledger";
  replace(top);
  replace(main, enter(project, ({ project: entered }) => {
    const { view, params } = read();
    if (adding) go(view, ofAnother(params, entered));
    else go(view, [...params].filter(([name]) => name !== "project").concat([["project", entered]]), { replace: true });
    if (shown === null) show();
  }, projects().length ? back : null));
}

function heading(view, params, project) {
  return h("div.heading", {},
    h("a.name", { href: link("logs", { project }) }, "toolledger"),
    h("nav", { "aria-label": "Views" }, Object.entries(VIEWS).map(([name, label]) =>
      h("a", { href: link(name, kept(params)), "aria-current": name === view ? "page" : null }, label))),
    h("span.grow"),
    h("span.project", {}, switcher(project)),
    h("button.quiet", { type: "button", title: "Forget this key", onclick: leave }, "Leave"),
    h("a.quiet", { href: "docs", target: "_blank", rel: "noopener" }, "API"),
    h("button.quiet.of-keyboard", { type: "button", "aria-keyshortcuts": "?", onclick: toggleHelp }, "Keys ?"));
}

function switcher(project) {
  const another = "+ another project";
  const select = h("select", {
    "aria-label": "Project",
    onchange: () => {
      if (select.selectedIndex === select.length - 1) {
        select.value = project;
        showEntry(null);
      } else {
        const { view, params } = read();
        go(view, ofAnother(params, select.value));
      }
    },
  }, projects().map((each) => h("option", { value: each, selected: each === project }, each)), h("option", { value: "" }, another));
  return select;
}

// Ids belong to a project: what was narrowed down by them would find nothing in another one.
function ofAnother(params, project) {
  return [["project", project], ...[...params].filter(([name]) => ["since", "from", "to", "tz"].includes(name))];
}

function leave() {
  forget(current()?.project);
  const { view } = read();
  go(view, projects().length ? { project: current().project } : {});
  show();
}

function kept(params) {
  return [...params].filter(([name]) => !OF_A_VIEW.includes(name));
}

function pressed(event) {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing) {
    typing.blur();
    return;
  }
  if (typing || document.querySelector("dialog[open]")) return;
  if (event.key === "?") toggleHelp();
  else if (event.key === "/") document.querySelector(".search input")?.focus();
  else if (!shown?.mounted?.key?.(event)) return;
  event.preventDefault();
}

start();
