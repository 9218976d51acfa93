import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { loraTargets } from "../src/models/lora-targets.ts";
import {
  causalLM,
  causalModelTypes,
  encoderModel,
  encoderModelTypes,
} from "../src/models/registry.ts";
import { loraCandidates, type LoraCandidate } from "../src/passes/lora.ts";
import { encoderFixtures } from "./support/batches.ts";
import { causalFixtures, fixture } from "./support/fixtures.ts";

/** Module → [out features, in features]. */
type Modules = Readonly<Record<string, readonly [number, number]>>;
let peft: Readonly<Record<string, { default: Modules | null; "all-linear": Modules }>>;

beforeAll(async () => {
  const path = join(import.meta.dirname, "fixtures/models/lora-targets.json");
  peft = JSON.parse(await readFile(path, "utf8")) as typeof peft;
});

async function candidatesOf(name: string): Promise<{ type: string; found: LoraCandidate[] }> {
  const { config } = await fixture(name);
  const type = String(config["model_type"]);
  const sequence = { batch: 1, length: 4 };
  if (encoderModelTypes.includes(type)) {
    const { logits, pooled } = encoderModel(config, sequence);
    return { type, found: loraCandidates(name === "bert" ? [logits, pooled!] : [logits]) };
  }
  const model = causalLM(config, sequence);
  return { type, found: loraCandidates([model.head(model.hidden)]) };
}

describe.each([...causalFixtures, ...encoderFixtures])("%s", (name) => {
  it.each(["default", "all-linear"] as const)(
    "%s: adapts the layers that PEFT adapts",
    async (kind) => {
      const { type, found } = await candidatesOf(name);
      const family = loraTargets(type);
      const want = peft[name]![kind];
      const config = lora(kind === "all-linear" ? { targetModules: kind } : {});
      if (!want) {
        expect(family.defaults).toEqual([]);
        return;
      }
      const chosen = resolveTargets(config, found, family);
      const shapes = found
        .filter(({ module }) => chosen.has(module))
        .map(({ module, outFeatures, inFeatures }) => [module, [outFeatures, inFeatures]]);
      expect(Object.fromEntries(shapes)).toEqual(want);
    },
  );

  it("has its head among the layers", async () => {
    const { type, found } = await candidatesOf(name);
    const { head } = loraTargets(type);
    expect(found.some(({ module }) => `.${module}.`.includes(`.${head}.`))).toBe(true);
  });
});

it("knows every family", () => {
  for (const type of [...causalModelTypes, ...encoderModelTypes])
    expect(loraTargets(type).head).toMatch(/./);
  expect(() => loraTargets("lama")).toThrow(/one of llama, .*got lama/);
});
