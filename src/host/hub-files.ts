/** A kind of thing on the hub, and which files of a repository it needs. */
export interface HubKind {
  /** What a repository is expected to hold. */
  readonly what: string;
  readonly hint: string;
  /** Whether it lies in several folders. */
  readonly recursive: boolean;
  /** The needed ones of `paths`; undefined when there is no such thing among them. */
  choose(paths: readonly string[]): readonly string[] | undefined;
}

const COMPANIONS =
  /^(config|tokenizer|tokenizer_config|generation_config|special_tokens_map|added_tokens|chat_template|vocab|adapter_config)\.json$|^(merges|vocab)\.txt$|^tokenizer\.model$|^chat_template\.jinja$/;

/** A language model. */
export const MODEL: HubKind = {
  what: "safetensors or PyTorch weights",
  hint: "For a GGUF repository, download one .gguf file and name its path.",
  recursive: false,
  choose: withCompanions([
    /^model\.safetensors$/,
    /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/,
    /^pytorch_model\.bin$/,
    /^pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?$/,
  ]),
};

const ADAPTER_WEIGHTS = [
  /^adapter_model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/,
  /^adapter_model(-\d+-of-\d+)?\.bin(\.index\.json)?$/,
  /^adapters\.safetensors$/,
  /^pytorch_lora_weights\.safetensors$/,
  /^pytorch_lora_weights\.bin$/,
  /^(unet|text_encoder|text_encoder_2)\/adapter_(config\.json|model\.safetensors)$/,
];

/** An adapter: PEFT's, mlx-lm's, or of an image model, where a file of any name may be the only one. */
export const ADAPTER: HubKind = {
  what: "one adapter",
  hint: "A whole model goes where a model is asked for: --model. Of several LoRA files, download one and name its path.",
  recursive: true,
  choose(paths) {
    const known = withCompanions(ADAPTER_WEIGHTS)(paths);
    if (known || paths.includes("config.json") || paths.includes("model_index.json")) return known;
    const files = paths.filter((path) => /^[^/]+\.safetensors$/.test(path));
    return files.length === 1 ? files : undefined;
  },
};

/** A Stable Diffusion model in diffusers layout. */
export const PIPELINE: HubKind = {
  what: "an image model in diffusers layout",
  hint: "For a single file in the original layout, download it and name its path.",
  recursive: true,
  choose(paths) {
    if (!paths.includes("unet/config.json")) return undefined;
    const shared = paths.filter((path) => PIPELINE_COMPANIONS.test(path));
    return [...shared, ...["unet", "vae", "text_encoder", "text_encoder_2"].flatMap(weightsIn)];

    function weightsIn(folder: string): readonly string[] {
      const own = paths.filter((path) => path.startsWith(`${folder}/`));
      return preferred(PIPELINE_WEIGHTS, own, (path) => path.slice(folder.length + 1)) ?? [];
    }
  },
};

const PIPELINE_COMPANIONS =
  /^model_index\.json$|^(unet|vae|text_encoder|text_encoder_2)\/config\.json$|^scheduler\/scheduler_config\.json$|^(tokenizer|tokenizer_2)\/[\w-]+\.(json|txt)$/;
/** The names of diffusers and transformers; 16 bits only where there is nothing else. */
const PIPELINE_WEIGHTS = [
  /^(diffusion_pytorch_)?model\.safetensors$/,
  /^(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/,
  /^(diffusion_pytorch_)?model\.fp16\.safetensors$/,
  /^(diffusion_pytorch_|pytorch_)model\.bin$/,
];

/** Chooses the files of the first of `weights` that matches, and what belongs to them. */
function withCompanions(weights: readonly RegExp[]): HubKind["choose"] {
  return (paths) => {
    const found = preferred(weights, paths, (path) => path);
    return found && [...paths.filter((path) => COMPANIONS.test(path)), ...found];
  };
}

/** Those of `paths` that the first of `patterns` matches which matches any. */
function preferred(
  patterns: readonly RegExp[],
  paths: readonly string[],
  nameOf: (path: string) => string,
): readonly string[] | undefined {
  const found = patterns.map((pattern) => paths.filter((path) => pattern.test(nameOf(path))));
  return found.find(({ length }) => length > 0);
}
