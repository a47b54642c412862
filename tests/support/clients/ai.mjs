// The AI SDK's own transport: { api, body, chat, message } on standard input; without a message it reconnects.
import fs from "node:fs";
import { DefaultChatTransport, readUIMessageStream } from "ai";

const { api, body, chat, message } = JSON.parse(fs.readFileSync(0, "utf8"));
const transport = new DefaultChatTransport({ api, body });
const said = { id: "1", role: "user", parts: [{ type: "text", text: message }] };
const stream = message
  ? await transport.sendMessages({ chatId: chat, messages: [said], trigger: "submit-message" })
  : await transport.reconnectToStream({ chatId: chat });
const errors = [];
let last = null;
if (stream) {
  const onError = (error) => errors.push(error.message);
  for await (const one of readUIMessageStream({ stream, onError })) last = one;
}
console.log(JSON.stringify({ reconnected: stream !== null, errors, parts: last?.parts ?? [] }));
