// A command that fetches a log. The key is a variable in it, never the key itself.

/** Returns the command line for a shell. */
export function curlOf(logId) {
  // What encodeURIComponent leaves of what a shell reads within single quotes.
  const url = new URL(`api/v3.1/logs/tool_execution/${encodeURIComponent(logId).replaceAll("'", "%27")}`, document.baseURI);
  url.hash = "";
  return `curl -sS '${url}' -H "x-api-key: $TOOLLEDGER_API_KEY"`;
}
