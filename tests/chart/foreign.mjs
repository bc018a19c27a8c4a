// Checks objects of operators against the schemas of their definitions: a list of objects as JSON on
// stdin, one line per problem on stdout. Usage: node foreign.mjs NODE_MODULES
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = {
  "keda.sh/v1alpha1": ["keda", "index.mjs"],
  "gateway.networking.k8s.io/v1": ["gateway-api", "index.js"],
  "monitoring.coreos.com/v1": ["prometheus-operator", "index.js"],
};
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const [name, index] = packages[object.apiVersion] ?? [];
  const folder = `${process.argv[2]}/@kubernetes-models/${name}/${object.apiVersion}`;
  const models = name ? await import(pathToFileURL(`${folder}/${index}`)) : {};
  const Model = models[object.kind];
  if (!Model) {
    console.log(`${object.kind}: no schema of ${object.apiVersion} is known`);
    continue;
  }
  try {
    new Model(object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
