import { describe, expect, it } from "vitest";
import { readLoraFile } from "../../../test/support/diffusion.ts";
import {
  fromOriginalUnetName,
  SDXL_LAYOUT,
  toOriginalUnetName,
} from "../../formats/stable-diffusion/unet-names.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { type Adapter, peftKey } from "../adapter.ts";
import { adapterOfModules } from "../adapter-modules.ts";
import { attachImageAdapter, baseOfAdapter } from "../image-adapter.ts";
import { adapterFromDiffusers, adapterToDiffusers } from "./diffusers.ts";
import { adapterFromKohya, adapterToKohya, isKohya } from "./kohya.ts";
import { fromKohyaName, toKohyaName } from "./kohya-names.ts";
import type { LoraFile } from "./lora-file.ts";

const file = (name: string, format: string): Promise<LoraFile> =>
  readLoraFile(`lora/${name}/${format}.safetensors`);
const bytes = ({ tensors }: { tensors: ReadonlyMap<string, Tensor> }): unknown =>
  Object.fromEntries(
    [...tensors]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, { dtype, shape, data }]) => [key, { dtype, shape, data: [...data] }]),
  );
const values = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => i / 8);
const zeros = (...shape: number[]): Tensor => tensor("f32", shape);

describe.each(["sd1-attention", "sd1-everything", "sdxl-attention"])("%s", (name) => {
  it("diffusers' file is written again as it was, metadata and all", async () => {
    const original = await file(name, "pytorch_lora_weights");
    const written = adapterToDiffusers(adapterFromDiffusers(original));
    expect(bytes(written)).toEqual(bytes(original));
    expect(written.metadata).toEqual(original.metadata);
  });

  it("says the same by way of kohya's names", async () => {
    const adapter = adapterFromDiffusers(await file(name, "pytorch_lora_weights"));
    const isXl = name.startsWith("sdxl");
    // the tiny models have other numbers of layers in a block than SDXL
    const layout = isXl ? { layersPerBlock: 1, attendsUp: [true, false] } : SDXL_LAYOUT;
    const kohya = adapterToKohya(adapter, { isXl, layout });
    const again = adapterFromKohya(kohya, layout);
    expect(bytes(again)).toEqual(bytes(adapter));
    for (const field of ["r", "alpha", "rankPattern", "alphaPattern"] as const)
      expect(again.config[field]).toEqual(adapter.config[field]);
    const { tensors } = adapterToDiffusers(again);
    expect(bytes({ tensors })).toEqual(bytes(await file(name, "pytorch_lora_weights")));
  });
});

describe("kohya's file", () => {
  it.each(["sd1-attention", "sd1-everything"])("%s is what we make of diffusers'", async (name) => {
    const kohya = await file(name, "kohya");
    const adapter = adapterFromDiffusers(await file(name, "pytorch_lora_weights"));
    expect(bytes(adapterToKohya(adapter, { isXl: false }))).toEqual(bytes(kohya));
    expect(bytes(adapterFromKohya(kohya))).toEqual(bytes(adapter));
    expect(isKohya(kohya.tensors.keys())).toBe(true);
    expect(isKohya(adapter.tensors.keys())).toBe(false);
  });

  it("keeps ranks, alphas and magnitudes of single modules, and what its metadata says", () => {
    const of = (rank: number, alpha: number | undefined): [string, Tensor][] => [
      ["lora_down.weight", tensor("f32", [rank, 6], values(6 * rank))],
      ["lora_up.weight", tensor("f32", [4, rank], values(4 * rank))],
      ...(alpha === undefined ? [] : ([["alpha", tensor("f32", [], Float32Array.of(alpha))]] as const)).map(([key, value]): [string, Tensor] => [key, value]), // prettier-ignore
    ];
    const tensors = new Map<string, Tensor>();
    const names = ["attn1_to_q", "attn1_to_k", "attn2_to_out_0", "ff_net_0_proj"];
    const settings: [number, number | undefined][] = [[2, 1], [2, 1], [3, 6], [2, undefined]]; // prettier-ignore
    for (const [i, name] of names.entries())
      for (const [part, value] of of(...settings[i]!))
        tensors.set(`lora_unet_mid_block_attentions_0_transformer_blocks_0_${name}.${part}`, value);
    const dora = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale";
    tensors.set(dora, tensor("f32", [4, 1], values(4)));
    const metadata = { ss_network_dim: "2", ss_output_name: "creature", sshs_model_hash: "abc" };
    const adapter = adapterFromKohya({ tensors, metadata });
    const at = "unet.mid_block.attentions.0.transformer_blocks.0";
    expect(adapter.config).toMatchObject({
      r: 2,
      alpha: 1,
      rankPattern: { [`${at}.attn2.to_out.0`]: 3 },
      alphaPattern: { [`${at}.attn2.to_out.0`]: 6, [`${at}.ff.net.0.proj`]: 2 },
      useDora: true,
    });
    const magnitude = adapter.tensors.get(peftKey(`${at}.attn1.to_q`, "lora_magnitude_vector"));
    expect(magnitude!.shape).toEqual([4]);
    const written = adapterToKohya(adapter, { isXl: false });
    const alpha = tensor("f32", [], Float32Array.of(2));
    tensors.set(`lora_unet_mid_block_attentions_0_transformer_blocks_0_${names[3]!}.alpha`, alpha);
    expect(bytes(written)).toEqual(bytes({ tensors }));
    expect(written.metadata).toMatchObject(metadata);
    const diffusers = adapterToDiffusers(adapter);
    const json = JSON.parse(diffusers.metadata["lora_adapter_metadata"]!) as object;
    expect(json).toMatchObject({ "unet.r": 2, "unet.lora_alpha": 1, "unet.use_dora": true });
    expect(bytes(adapterFromDiffusers(diffusers))).toEqual(bytes(adapter));
  });

  it("with other decompositions or other models is refused", () => {
    const refused =
      (key: string): (() => Adapter) =>
      () =>
        adapterFromKohya({ tensors: new Map([[key, zeros(2, 2)]]), metadata: {} });
    expect(refused("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a")).toThrow("LyCORIS");
    const norms = new Map([["lora_unet_mid_block_attentions_0_proj_in.dora_scale", zeros(1, 4)]]);
    expect(() => adapterFromKohya({ tensors: norms, metadata: {} })).toThrow("one for each input");
    expect(refused("lora_unet_double_blocks.0.x.lora_down.weight")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("FLUX") as string }),
    );
    expect(() =>
      adapterFromDiffusers({
        tensors: new Map([["transformer.blocks.0.attn.to_q.lora_A.weight", zeros(2, 2)]]),
        metadata: {},
      }),
    ).toThrow("transformer.blocks.0.attn.to_q.lora_A.weight");
  });
});

it("reads every way that diffusers has spelled a module", () => {
  for (const name of [
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora",
  ]) {
    const tensors = new Map(["down", "up"].map((part) => [`${name}.${part}.weight`, zeros(2, 2)]));
    const adapter = adapterFromDiffusers({ tensors, metadata: {} });
    expect(adapter.config.targetModules).toEqual([
      "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    ]);
  }
  const text = "text_encoder.text_model.encoder.layers.0.self_attn";
  for (const name of [`${text}.q_proj.lora_linear_layer`, `${text}.to_q_lora`]) {
    const tensors = new Map(["down", "up"].map((part) => [`${name}.${part}.weight`, zeros(2, 2)]));
    const adapter = adapterFromDiffusers({ tensors, metadata: {} });
    expect(adapter.config.targetModules).toEqual([`${text}.q_proj`]);
  }
});

describe("names of SDXL in its original layout", () => {
  // from the key lists of published checkpoints and LoRA files
  const pairs: readonly [string, string][] = [
    ["conv_in", "input_blocks.0.0"],
    ["down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"],
    ["down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"],
    ["down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"],
    [
      "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0",
      "input_blocks.4.1.transformer_blocks.1.attn2.to_out.0",
    ],
    ["down_blocks.2.attentions.1.proj_in", "input_blocks.8.1.proj_in"],
    ["mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"],
    ["mid_block.attentions.0.norm", "middle_block.1.norm"],
    ["up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out"],
    ["up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"],
    ["up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"],
    ["up_blocks.2.resnets.2.norm2", "output_blocks.8.0.out_layers.0"],
    ["add_embedding.linear_2", "label_emb.0.2"],
    ["conv_norm_out", "out.0"],
    ["conv_out", "out.2"],
  ];
  it.each(pairs)("%s is %s", (own, theirs) => {
    expect(toOriginalUnetName(own, SDXL_LAYOUT)).toBe(theirs);
    expect(fromOriginalUnetName(theirs, SDXL_LAYOUT)).toBe(own);
    const naming = { isXl: true, layout: SDXL_LAYOUT };
    const flat = `lora_unet_${theirs.replaceAll(".", "_")}`;
    expect(toKohyaName(`unet.${own}`, naming)).toBe(flat);
    expect(fromKohyaName(flat, SDXL_LAYOUT)).toBe(`unet.${own}`);
    const plain = toKohyaName(`unet.${own}`, { ...naming, isXl: false })!;
    expect(plain).toBe(`lora_unet_${own.replaceAll(".", "_")}`);
    expect(fromKohyaName(plain, SDXL_LAYOUT)).toBe(`unet.${own}`);
  });

  it("tells text encoders apart", () => {
    const module = "text_model.encoder.layers.11.self_attn.out_proj";
    const naming = { layout: SDXL_LAYOUT };
    const flat = "text_model_encoder_layers_11_self_attn_out_proj";
    for (const [model, isXl, prefix] of [
      ["text_encoder", false, "lora_te"],
      ["text_encoder", true, "lora_te1"],
      ["text_encoder_2", true, "lora_te2"],
    ] as const) {
      const name = toKohyaName(`${model}.${module}`, { ...naming, isXl });
      expect(name).toBe(`${prefix}_${flat}`);
      expect(fromKohyaName(name!, SDXL_LAYOUT)).toBe(`${model}.${module}`);
    }
    const parts = new Map([["lora_A.weight", zeros(2, 8)], ["lora_B.weight", zeros(8, 2)]]); // prettier-ignore
    const adapter = adapterOfModules(
      new Map([[`text_encoder_2.${module}`, { parts, alpha: 2 }]]),
      {},
    );
    expect(baseOfAdapter(adapter)).toBe("sdxl");
  });
});

describe("an adapter of another base", () => {
  it("is refused with what does not fit and which base it is for", () => {
    const module = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k";
    const parts = new Map([
      ["lora_A.weight", zeros(4, 2048)],
      ["lora_B.weight", zeros(640, 4)],
    ]);
    const deep = module.replace("blocks.0.attn2", "blocks.9.attn2");
    const adapter = adapterOfModules(
      new Map([
        [module, { parts, alpha: 4 }],
        [deep, { parts, alpha: 4 }],
      ]),
      {},
    );
    const layer = {
      module,
      kind: "linear" as const,
      inFeatures: 768,
      outFeatures: 640,
      kernel: [],
      groups: 1,
      fanInFanOut: false,
      weight: `${module}.weight`,
    };
    const attach = (): unknown => attachImageAdapter(adapter, [layer]);
    expect(attach).toThrow("[4, 2048] for [4, 768]");
    expect(attach).toThrow(deep);
    expect(attach).toThrow(
      expect.objectContaining({ code: "adapter-mismatch", hint: expect.stringContaining("Stable Diffusion XL") as string }), // prettier-ignore
    );
    const fine = attachImageAdapter(adapter, [
      { ...layer, inFeatures: 2048, kind: "conv2d", kernel: [1, 1] },
      { ...layer, inFeatures: 2048, module: deep },
    ]);
    expect(fine.values.get(peftKey(module, "lora_A.weight"))!.shape).toEqual([4, 2048, 1, 1]);
  });
});
