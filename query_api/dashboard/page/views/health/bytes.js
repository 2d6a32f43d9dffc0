// Bytes for people: as text as far as they are that, and as a hex dump.

const PER_LINE = 16;

/** Returns the bytes of a payload as the API writes it. */
export function bytesOf({ payload, encoding }) {
  if (encoding === "utf-8") return new TextEncoder().encode(payload);
  return Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
}

/** Returns bytes as text; what is no UTF-8 as �. */
export function textOf(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Returns a dump: place, bytes, and the characters of those that are printable ASCII. */
export function hexDump(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += PER_LINE) {
    const line = [...bytes.subarray(at, at + PER_LINE)];
    const hex = line.map((each) => each.toString(16).padStart(2, "0")).join(" ").padEnd(PER_LINE * 3 - 1);
    const text = line.map((each) => (each >= 0x20 && each < 0x7f ? String.fromCharCode(each) : ".")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${hex}  ${text}`);
  }
  return lines.join("\n");
}
