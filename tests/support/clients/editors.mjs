// What an editor offers at each ‸, and what it says of whole texts: { SCHEMA, places, texts } on standard input.
import fs from "node:fs";
import service from "vscode-json-languageservice";

const { schema, places, texts } = JSON.parse(fs.readFileSync(0, "utf8"));
const language = service.getLanguageService({});
language.configure({ validate: true, schemas: [{ uri: "file:///schema.json", fileMatch: ["*"], schema }] });

function read(text) {
  const document = service.TextDocument.create("file:///definition.json", "json", 1, text);
  return [document, language.parseJSONDocument(document)];
}

async function offered(text) {
  const [document, parsed] = read(text.replace("‸", ""));
  const found = await language.doComplete(document, document.positionAt(text.indexOf("‸")), parsed);
  return found.items.map((item) => item.label.replaceAll('"', ""));
}

async function told(text) {
  return (await language.doValidation(...read(text))).map((problem) => problem.message);
}

console.log(JSON.stringify({
  places: await Promise.all(places.map(offered)),
  texts: await Promise.all(texts.map(told)),
}));
