// Which of some documents a validator with its defaults refuses: { schema, documents } on standard input.
import fs from "node:fs";
import Ajv from "ajv/dist/2020.js";

const { schema, documents } = JSON.parse(fs.readFileSync(0, "utf8"));
const validate = new Ajv.default().compile(schema);
console.log(JSON.stringify(Object.keys(documents).filter((name) => !validate(documents[name]))));
