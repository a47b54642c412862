// AG-UI's own client, as its documentation says: { url, message, input } on standard input.
import fs from "node:fs";
import { HttpAgent } from "@ag-ui/client";

const { url, message, input } = JSON.parse(fs.readFileSync(0, "utf8"));
const agent = new HttpAgent({ url });
if (message) agent.addMessage({ id: "1", role: "user", content: message });
const types = [];
const errors = [];
const { result } = await agent.runAgent({ forwardedProps: { input } }, {
  onEvent: ({ event }) => void types.push(event.type),
  onRunErrorEvent: ({ event }) => void errors.push([event.code, event.message]),
});
const messages = agent.messages.map(({ role, content, toolCalls }) => ({
  role, content, tools: (toolCalls ?? []).map((call) => call.function.name),
}));
console.log(JSON.stringify({ types, errors, result: result ?? null, messages, state: agent.state }));
