// Signs a body as GitHub does: sign.mjs SECRET BODY. Prints the headers as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [secret, body] = process.argv.slice(2);
const folder = `${process.cwd()}/.tools/peers/node_modules/@octokit/webhooks-methods`;
const { exports } = JSON.parse(readFileSync(`${folder}/package.json`));
const { sign } = await import(pathToFileURL(`${folder}/${exports["."].node.import}`));
console.log(JSON.stringify({ "x-hub-signature-256": await sign(secret, body) }));
