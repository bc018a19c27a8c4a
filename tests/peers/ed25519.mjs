// Signs a body with Ed25519 as Standard Webhooks says: ed25519.mjs SEED BODY, the seed in hexadecimal
// digits. Prints the headers as JSON, and the public key as `x-public-key`.
import { createPrivateKey, createPublicKey, sign } from "node:crypto";

const [seed, body] = process.argv.slice(2);
// RFC 8410: what stands before the 32 bytes of a private key, and of a public one.
const head = "302e020100300506032b657004220420";
const key = createPrivateKey({ key: Buffer.from(head + seed, "hex"), format: "der", type: "pkcs8" });
const publicKey = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
const time = Math.floor(Date.now() / 1000);
const signature = sign(null, Buffer.from(`msg_3.${time}.${body}`), key).toString("base64");
console.log(
  JSON.stringify({
    "webhook-id": "msg_3",
    "webhook-timestamp": `${time}`,
    "webhook-signature": `v1,AAAA v1a,${signature}`,
    "x-public-key": `whpk_${publicKey.toString("base64")}`,
  }),
);
