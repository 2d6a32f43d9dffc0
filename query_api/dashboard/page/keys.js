// Keys, kept by the browser for as long as this tab lives (sessionStorage), never in an address.

const PLACE = "toolledger.keys";

function stored() {
  try {
    const found = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
    if (found && Array.isArray(found.keys)) return found;
  } catch {
    // Not ours, or broken off: as if there were none.
  }
  return { keys: [], project: null };
}

function keep(state) {
  sessionStorage.setItem(PLACE, JSON.stringify(state));
}

/** Returns the projects there are keys for, in order. */
export function projects() {
  return stored().keys.map((each) => each.project);
}

/** Returns {project, key, scope} of the project that is looked at; null where none is. */
export function current() {
  const { keys, project } = stored();
  return keys.find((each) => each.project === project) ?? null;
}

/** Keeps a key, and looks at its project. */
export function add({ project, key, scope }) {
  const others = stored().keys.filter((each) => each.project !== project);
  const keys = [...others, { project, key, scope }].sort((a, b) => (a.project < b.project ? -1 : 1));
  keep({ keys, project });
}

/** Looks at another project; returns whether there is a key for it. */
export function choose(project) {
  const state = stored();
  if (!state.keys.some((each) => each.project === project)) return false;
  keep({ ...state, project });
  return true;
}

/** Forgets the key of a project, or all of them. */
export function forget(project = null) {
  const keys = project === null ? [] : stored().keys.filter((each) => each.project !== project);
  keep({ keys, project: keys[0]?.project ?? null });
}
