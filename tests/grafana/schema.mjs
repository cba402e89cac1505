// Check dashboards against Grafana's own schema: each becomes a TypeScript source with values of the types in
// @grafana/schema, and is compiled. Unknown fields, wrong types, unknown enum values and unknown kinds of panel are errors.
//
//     node schema.mjs NODE_MODULES DASHBOARD.json...
import { createRequire } from "node:module";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const ts = createRequire(join(modules, "here.js"))("typescript");
const schema = join(modules, "@grafana", "schema", "dist", "types");

// The types in a folder of the schema: one file, whose name differs from version to version.
function typesOf(...folders) {
  const folder = join(schema, "raw", ...folders, "x");
  const file = existsSync(folder) && readdirSync(folder).find((name) => name.endsWith(".gen.d.ts"));
  return file && join(folder, file.replace(/\.d\.ts$/, ""));
}

// JSON has no enums: a value of one is written as the text or the number that it stands for.
const PLAIN = `
type Plain<T> = T extends string ? \`\${T}\` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer Item> ? Array<Plain<Item>>
  : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
// What the two data sources take, by Grafana's documentation: their queries are not in this schema.
interface Query { refId: string; datasource: Plain<schema.DataSourceRef>; editorMode: "code" }
interface PrometheusQuery extends Query { expr: string; legendFormat: string; instant: boolean; range: boolean }
interface SqlQuery extends Query { format: "table" | "time_series"; rawQuery: true; rawSql: string }
`;

function source(dashboard) {
  const lines = [
    `import type * as schema from ${JSON.stringify(typesOf("dashboard"))};`,
    PLAIN,
  ];
  const say = (name, type, value) => lines.push(`const ${name}: ${type} = ${JSON.stringify(value)};`);
  const { panels, ...frame } = dashboard;
  say("frame", `Plain<Omit<schema.Dashboard, "panels">>`, frame);
  panels.forEach((panel, place) => {
    if (panel.type === "row") return say(`row_${place}`, "Plain<schema.RowPanel>", panel);
    const types = typesOf("composable", panel.type, "panelcfg");
    if (!types) throw new Error(`"${panel.title}": Grafana has no kind of panel "${panel.type}"`);
    lines.push(`import type * as kind_${place} from ${JSON.stringify(types)};`);
    const { options, targets, ...rest } = panel;
    const custom = panel.fieldConfig.defaults.custom;
    say(`panel_${place}`, "Plain<schema.Panel>", rest);
    say(`options_${place}`, `Partial<Plain<kind_${place}.Options>>`, options);
    if (custom) say(`custom_${place}`, `Partial<Plain<kind_${place}.FieldConfig>>`, custom);
    targets.forEach((target, number) => {
      const type = "rawSql" in target ? "SqlQuery" : "PrometheusQuery";
      say(`target_${place}_${number}`, type, target);
    });
  });
  return lines.join("\n");
}

const options = {
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ES2022,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  types: [],
};

// All files are one program: reading the schema and TypeScript's library takes most of the time.
function check(sources) {
  const host = ts.createCompilerHost(options);
  const { readFile, fileExists, getSourceFile } = host;
  host.fileExists = (name) => sources.has(name) || fileExists(name);
  host.readFile = (name) => sources.get(name) ?? readFile(name);
  host.getSourceFile = (name, ...rest) =>
    sources.has(name) ? ts.createSourceFile(name, sources.get(name), options.target) : getSourceFile(name, ...rest);
  const program = ts.createProgram([...sources.keys()], options, host);
  return ts.getPreEmitDiagnostics(program).map((found) => {
    const name = found.file?.fileName ?? "";
    const line = found.file && found.file.text.slice(0, found.start).split("\n").length;
    const value = sources.has(name) ? sources.get(name).split("\n")[line - 1].slice(0, 60) : name;
    const words = ts.flattenDiagnosticMessageText(found.messageText, " ");
    return `${basename(name).replace(/\.check\.ts$/, ".json")}: ${value}...: ${words}`;
  });
}

const errors = [];
const sources = new Map();
for (const file of files) {
  try {
    const virtual = join(dirname(modules), `${basename(file, ".json")}.check.ts`);
    sources.set(virtual, source(JSON.parse(readFileSync(file, "utf8"))));
  } catch (error) {
    errors.push(`${basename(file)}: ${error.message}`);
  }
}
errors.push(...check(sources));
errors.forEach((error) => console.error(error));
if (!errors.length) console.log(`${files.length} dashboards follow the schema`);
process.exit(errors.length ? 1 : 0);
