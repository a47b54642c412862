// Temporal's own client: { address, name, id, input } on standard input.
import fs from "node:fs";
import { Client, Connection } from "@temporalio/client";

const { address, name, id, input } = JSON.parse(fs.readFileSync(0, "utf8"));
const connection = await Connection.connect({ address });
const started = { taskQueue: "collaborations", workflowId: id, args: [input] };
const found = await new Client({ connection }).workflow.execute(name, started).then(
  (result) => ({ result }),
  ({ cause }) => ({ type: cause?.type, message: cause?.message }),
);
console.log(JSON.stringify(found));
await connection.close();
