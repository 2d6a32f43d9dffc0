// A table as a file (RFC 4180).

// What a spreadsheet would take for a formula (OWASP, CSV injection); the API's own export marks the same.
const FORMULA = /^[=+\-@\t\r\n\0\uff1d\uff0b\uff0d\uff20]/;

/** Returns the text of a table: texts made safe, numbers as they are, null as nothing. */
export function csv(header, rows) {
  return [header, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Hands a text to the reader as a file. */
export function download(name, text) {
  // The mark at its head tells a spreadsheet that this is UTF-8.
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name.replace(/[^\w.-]+/g, "_");
  anchor.click();
  // The browser has taken hold of it by then; without this its bytes would stay for as long as the tab.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
