import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Adapter } from "../src/adapter/adapter.ts";
import { type AdapterBase, adapterBase } from "../src/adapter/adapter-base.ts";
import { initialAdapter } from "../src/adapter/initial-adapter.ts";
import { loraFaults } from "../src/adapter/lora-faults.ts";
import { lora, type LoraConfig } from "../src/adapter/lora-config.ts";
import { type AdapterJson, parsePeftConfig, toPeftConfig } from "../src/adapter/peft-config.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import { loraTargets } from "../src/models/lora-targets.ts";
import { causalLM, encoderModel, encoderModelTypes } from "../src/models/registry.ts";
import { tinyModel } from "./support/tiny.ts";

const fixtures = join(import.meta.dirname, "fixtures/adapters");
interface Case {
  readonly base: string;
  readonly config: AdapterJson;
  readonly adapter_folder: string;
}
const cases = readdirSync(fixtures, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== "base")
  .map(({ name }): [string, Case] => [
    name,
    JSON.parse(readFileSync(join(fixtures, name, "case.json"), "utf8")) as Case,
  ])
  .filter(([, { base }]) => base !== "conv");

async function baseOf(name: string): Promise<AdapterBase> {
  const { config, weights } = await tinyModel(name);
  const type = String(config["model_type"]);
  const sequence = { batch: 1, length: 1 };
  if (encoderModelTypes.includes(type))
    return adapterBase([encoderModel(config, sequence).logits], loraTargets(type), weights);
  const model = causalLM(config, sequence);
  return adapterBase([model.head(model.hidden)], loraTargets(type), weights);
}

/** Shapes by key; not what PEFT repeats under a second name. */
function shapesOf({ tensors }: Adapter): Record<string, readonly number[]> {
  const own = [...tensors].filter(([key]) => !/\.(original_module|modules_to_save)\./.test(key));
  return Object.fromEntries(own.map(([key, { shape }]) => [key, shape]));
}

async function fresh(base: string, config: Partial<LoraConfig>, seed = 1): Promise<Adapter> {
  return initialAdapter(lora(config), await baseOf(base), { seed });
}

describe.each(cases)("%s", (name, { base, config, adapter_folder }) => {
  it("a fresh adapter has the keys and shapes of PEFT's, and its configuration", async () => {
    const saved = await loadAdapterFolder(join(fixtures, name, adapter_folder));
    const wanted = parsePeftConfig({ peft_type: "LORA", ...config });
    const made = await initialAdapter(wanted, await baseOf(base), { seed: 1 });
    expect(shapesOf(made)).toEqual(shapesOf(saved));
    const [got, want] = [toPeftConfig(made.config), toPeftConfig(saved.config)];
    for (const [key, value] of Object.entries(want)) {
      // PEFT spells "all-linear" out
      if (key === "base_model_name_or_path" || config[key] === "all-linear") continue;
      expect(sorted(got[key]), key).toEqual(sorted(value));
    }
  });
});

function sorted(value: unknown): unknown {
  return Array.isArray(value) ? value.toSorted() : value;
}

describe("a fresh adapter", () => {
  it("keeps ties: the head's copies are those of the embedding, transposed", async () => {
    const { tensors } = await fresh("llama", {
      targetModules: ["lm_head", "q_proj"],
      ensureWeightTying: true,
    });
    const embedding = tensors.get("base_model.model.model.embed_tokens.lora_embedding_B")!;
    const head = tensors.get("base_model.model.lm_head.lora_A.weight")!;
    expect(head.shape).toEqual([8, 32]);
    expect(head.data[3 * 32 + 5]).toBe(embedding.data[5 * 8 + 3]);
    expect(tensors.has("base_model.model.lm_head.lora_B.weight")).toBe(true);
  });

  it("saves a tied head once, and twice where ties are to be kept", async () => {
    const keys = async (config: Partial<LoraConfig>): Promise<string[]> => {
      const { tensors } = await fresh("llama", { targetModules: ["q_proj"], ...config });
      return [...tensors.keys()].filter((key) => !key.includes("lora_"));
    };
    expect(await keys({ modulesToSave: ["lm_head"] })).toEqual(["base_model.model.lm_head.weight"]);
    const both = ["base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"];
    expect(await keys({ modulesToSave: ["lm_head"], ensureWeightTying: true })).toEqual(both);
  });

  it("shares rows of tokens that embedding and head have in common", async () => {
    const rows = { embed_tokens: [3, 5], lm_head: [3, 5] };
    const { tensors } = await fresh("llama", { trainableTokenIndices: rows });
    expect([...tensors.keys()].filter((key) => key.includes("token_adapter"))).toEqual([
      "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    ]);
  });

  it("names layers_to_transform one by one under all-linear, which PEFT cannot read together", async () => {
    const { config } = await fresh("llama", {
      targetModules: "all-linear",
      layersToTransform: [1],
    });
    expect(config.layersToTransform).toBeUndefined();
    expect(config.targetModules).toHaveLength(7);
    expect(config.targetModules).toContain("model.layers.1.mlp.up_proj");
  });

  it.each([
    [{ modulesToSave: ["lm_hed"] }, "modules-to-save", /"lm_hed".*did you mean "lm_head"/],
    [{ trainableTokenIndices: [128] }, "token-indices", /from 0 to 127, got 128/],
    [{ trainableTokenIndices: { tok: [1] } }, "token-indices", /"tok" is no embedding/],
    [
      { trainableTokenIndices: [1], modulesToSave: ["embed_tokens"] },
      "token-indices",
      /in modules_to_save too/,
    ],
    [
      {
        trainableTokenIndices: { embed_tokens: [1], lm_head: [2] },
        ensureWeightTying: true,
      },
      "token-indices",
      /stay tied/,
    ],
    [{ init: "corda" as never }, "lora-config", /CorDA is not/],
    [{ init: "pisa" as never }, "lora-config", /got "pisa"/],
    [{ loraBias: true, useDora: true }, "lora-config", /one of `lora_bias` and `use_dora`/],
    [{ loraBias: true, init: "olora" }, "lora-config", /true or false with `lora_bias`/],
    [{ layersPattern: ["layers"] }, "lora-config", /`layers_to_transform` with `layers_pattern`/],
    [{ init: "orthogonal", r: 3 }, "unsupported-init", /even rank/],
    [{ init: "pissa", r: 64 }, "unsupported-init", /at most 32/],
  ] as [Partial<LoraConfig>, string, RegExp][])("refuses %o", async (config, code, message) => {
    await expect(fresh("llama", config)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
  });

  it("refuses PEFT's variants that are not built, by their names", () => {
    for (const [field, name] of [
      ["corda_config", "CorDA"],
      ["kasa_config", "KaSA"],
      ["velora_config", "VeLoRA"],
      ["use_qalora", "QALoRA"],
      ["arrow_config", "Arrow"],
      ["use_bdlora", "BD-LoRA"],
      ["monteclora_config", "MonteCLoRA"],
      ["alora_invocation_tokens", "aLoRA"],
    ] as const)
      expect(() => parsePeftConfig({ peft_type: "LORA", [field]: { any: 1 } })).toThrow(
        new RegExp(`${field} \\(${name}\\)`),
      );
    expect(() => parsePeftConfig({ peft_type: "LORA", init_lora_weights: "lora_ga" })).toThrow(
      /LoRA-GA/,
    );
  });
});

it("takes the names of initialisations as PEFT does: two of them in any case, and writes them as they were", () => {
  for (const [written, init] of [["OLoRA", "olora"], ["Gaussian", "gaussian"]] as const) {
    const json = { peft_type: "LORA", init_lora_weights: written };
    const config = parsePeftConfig(json);
    expect(config.init).toBe(init);
    expect(toPeftConfig(config, json)["init_lora_weights"]).toBe(written);
    expect(lora({ init: written as never }).init).toBe(init);
  } // prettier-ignore
  for (const init_lora_weights of ["PiSSA", "Orthogonal", "EVA", "LoftQ"])
    expect(() => parsePeftConfig({ peft_type: "LORA", init_lora_weights })).toThrow("not known");
  for (const init_lora_weights of ["MiCA", "corda"])
    expect(() => parsePeftConfig({ peft_type: "LORA", init_lora_weights })).toThrow(
      /: (MiCA|CorDA)/,
    );
});

it("refuses options that there are not, with the nearest", () => {
  expect(() => lora({ rank: 4, lora_alpha: 8, use_dora: true } as never)).toThrow(
    'Expected options of LoRA, got "rank", "lora_alpha" (did you mean "alpha"?), "use_dora" (did you mean "useDora"?)',
  );
  const everything = lora({ eva: { rho: 2, tau: 1, useLabelMask: true, whiten: false, adjustScalingFactors: true }, loftqIterations: 2 }); // prettier-ignore
  expect(lora(everything)).toEqual(everything);
});

it("refuses values and patterns that make no sense, all at once, of settings and of files", () => {
  const config = lora({ alpha: NaN, alphaPattern: { q_proj: Infinity }, dropout: 2, bias: "some" as never, targetModules: "q_proj(", rankPattern: { "[": 2 } }); // prettier-ignore
  expect(loraFaults(config)).toEqual([
    "Expected alphas to be numbers, got NaN, Infinity.",
    "Expected dropout from 0 to 1, got 2.",
    "Expected bias to be none, all or lora_only, got some.",
    expect.stringContaining("/q_proj(/: Unterminated group"),
    expect.stringContaining("/[/: "),
  ]);
  expect(loraFaults(lora({ targetModules: ["c++"], excludeModules: ["("] }))).toEqual([]); // names
  expect(() => parsePeftConfig({ peft_type: "LORA", exclude_modules: "(?P<n>q)" })).toThrow(
    "Expected a regular expression",
  );
});
