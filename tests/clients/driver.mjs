// Make calls with the official JavaScript client and say what it made of the answers: what driver.py is for Python.
// A line in: {"client": {...}, "call": "logs.createToolExecution", "args": [...]}.
import { createInterface } from "node:readline";
import Composio from "@composio/client";

const classes = (error) => {
  const found = [];
  for (let one = Object.getPrototypeOf(error); one && one !== Object.prototype; one = Object.getPrototypeOf(one)) {
    found.push(one.constructor.name);
  }
  return found;
};

const lowered = (headers) => Object.fromEntries(headers ? headers.entries() : []);

const answer = async ({ client, call, args = [] }) => {
  const path = call.split(".");
  const name = path.pop();
  const resource = path.reduce((value, step) => value[step], new Composio(client));
  const { data, response } = await resource[name](...args).withResponse();
  return { result: data, status: response.status, headers: lowered(response.headers) };
};

const failure = (error) => ({
  class: error.constructor.name,
  bases: classes(error),
  text: error.message,
  status: error.status ?? null,
  details: error.error?.error ?? null,
  headers: lowered(error.headers),
});

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = await answer(JSON.parse(line));
  } catch (error) {
    said = { error: failure(error) };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
