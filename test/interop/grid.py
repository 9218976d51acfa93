"""The configurations of the interop grid: name → (base, LoraConfig keyword arguments, options).

Options: `dtype` of the base ("f32", "f16", "bf16"), `autocast` (False keeps adapters in the base's dtype), `adapter`
(its name), `format` ("bin" for adapter_model.bin), `convert` (also save as plain LoRA against the untouched base),
`save_embeddings` (the targeted embedding's base weight goes into the file too).
"""
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QV = ["q_proj", "v_proj"]
SEQ = dict(task_type="SEQ_CLS")
Case = tuple[str, dict, dict]


def case(base: str, options: dict | None = None, **config) -> Case:
    defaults = dict(lora_alpha=64) if base == "conv" else dict(task_type="CAUSAL_LM")
    return base, dict(r=4, lora_alpha=8) | defaults | config, options or {}


GRID: dict[str, Case] = {
    # Which modules.
    "targets-default": case("llama"),
    "targets-list": case("llama", target_modules=ALL),
    "targets-all-linear": case("llama", target_modules="all-linear"),
    "targets-all-linear-biases": case("llama-rope3", target_modules="all-linear"),
    "targets-regex": case("llama", target_modules=r".*layers\.[02]\.(self_attn|mlp)\.(q|up)_proj"),
    "targets-full-name": case("llama", target_modules=["model.layers.1.mlp.up_proj", "layers.2.self_attn.o_proj"]),
    "targets-lm-head": case("llama-rope3", target_modules=["lm_head", "q_proj"]),
    "targets-lm-head-tied": case("llama", target_modules=["lm_head", "q_proj"]),
    "exclude-list": case("llama", target_modules="all-linear", exclude_modules=["up_proj", "layers.0.self_attn.q_proj"]),
    "exclude-regex": case("llama", target_modules=ALL, exclude_modules=r".*\.mlp\..*"),
    "layers-int": case("llama", target_modules=QV, layers_to_transform=1),
    "layers-list-pattern": case("llama", target_modules=QV, layers_to_transform=[0, 2], layers_pattern="layers"),
    # Ranks and scales.
    "rank-1": case("llama", target_modules=ALL, r=1, lora_alpha=1),
    "rank-64": case("llama", target_modules=QV, r=64, lora_alpha=16),
    "alpha-odd": case("llama", target_modules=QV, r=3, lora_alpha=7),
    "rank-pattern": case("llama", target_modules=ALL, rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 6}),
    "alpha-pattern": case("llama", target_modules=ALL, alpha_pattern={r"layers.\d.mlp.down_proj": 3, "v_proj": 32}),
    "patterns-anchored": case("llama", target_modules=ALL, rank_pattern={r"^model.layers.0.self_attn.q_proj": 8, r".*o_proj": 2}, alpha_pattern={"k_proj": 5}),
    "patterns-rslora": case("llama", target_modules=ALL, rank_pattern={"q_proj": 9}, alpha_pattern={"q_proj": 5}, use_rslora=True),
    "rslora": case("llama", target_modules=ALL, r=9, use_rslora=True),
    "dropout": case("llama", target_modules=ALL, lora_dropout=0.1),
    # DoRA × rsLoRA × bias × modules_to_save.
    "dora": case("llama", target_modules=ALL, use_dora=True),
    "dora-rslora": case("llama", target_modules=ALL, use_dora=True, use_rslora=True),
    "bias-all": case("llama-rope3", target_modules=QV, bias="all"),
    "bias-lora-only": case("llama-rope3", target_modules=QV, bias="lora_only"),
    "dora-bias-all": case("llama-rope3", target_modules=ALL, bias="all", use_dora=True),
    "dora-rslora-bias-lora-only": case("llama-rope3", target_modules=QV, bias="lora_only", use_dora=True, use_rslora=True),
    "save-head": case("llama-rope3", target_modules=QV, modules_to_save=["lm_head"]),
    "save-head-embed": case("llama-rope3", target_modules=QV, modules_to_save=["lm_head", "embed_tokens"]),
    "save-norms": case("llama", target_modules=QV, modules_to_save=["norm"]),
    "save-embed-tied": case("llama", target_modules=QV, modules_to_save=["embed_tokens"]),
    "save-embed-tied-ensure": case("llama", target_modules=QV, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "dora-save": case("llama-rope3", target_modules=ALL, use_dora=True, modules_to_save=["lm_head"]),
    "dora-rslora-bias-save": case("llama-rope3", target_modules=QV, use_dora=True, use_rslora=True, bias="all", modules_to_save=["norm"]),
    "rslora-bias-save": case("llama-rope3", target_modules=QV, use_rslora=True, bias="lora_only", modules_to_save=["lm_head"]),
    "lora-bias": case("llama-rope3", target_modules=QV, lora_bias=True),
    "lora-bias-rslora": case("llama-rope3", target_modules=ALL, lora_bias=True, use_rslora=True),
    # Embeddings.
    "embedding": case("llama-rope3", target_modules=["embed_tokens", "q_proj"]),
    "embedding-saved": case("llama-rope3", dict(save_embeddings=True), target_modules=["embed_tokens", "q_proj"]),
    "embedding-tied": case("llama", target_modules=["embed_tokens", "q_proj"]),
    "embedding-tied-ensure": case("llama", target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
    "embedding-dora": case("llama-rope3", target_modules=["embed_tokens", "q_proj"], use_dora=True),
    "tokens-list": case("llama-rope3", target_modules=QV, trainable_token_indices=[1, 5, 127]),
    "tokens-tied": case("llama", target_modules=QV, trainable_token_indices=[1, 5, 127]),
    "tokens-dict": case("llama-rope3", target_modules=QV, trainable_token_indices={"embed_tokens": [4, 9], "lm_head": [9, 11]}),
    # Initialisations that leave a mark on the base or the file.
    "init-gaussian": case("llama", target_modules=ALL, init_lora_weights="gaussian"),
    "init-false": case("llama", target_modules=ALL, init_lora_weights=False),
    "init-pissa": case("llama", dict(convert=True), target_modules=ALL, init_lora_weights="pissa"),
    "init-pissa-niter": case("llama", dict(convert=True), target_modules=QV, init_lora_weights="pissa_niter_4"),
    "init-pissa-rslora": case("llama", dict(convert=True), target_modules=QV, init_lora_weights="pissa", use_rslora=True),
    "init-olora": case("llama", dict(convert=True), target_modules=ALL, init_lora_weights="olora"),
    "init-orthogonal": case("llama", target_modules=ALL, init_lora_weights="orthogonal"),
    "init-eva": case("llama", target_modules=QV, init_lora_weights="eva"),
    # Raw parameters.
    "parameters": case("llama", target_modules=[], target_parameters=["q_proj.weight", "layers.1.mlp.up_proj.weight"]),
    "parameters-beside-modules": case("llama", target_modules=["v_proj"], target_parameters=["self_attn.q_proj.weight"]),
    # Dtypes and files.
    "base-f16": case("llama-f16", dict(dtype="f16"), target_modules=ALL),
    "base-bf16": case("llama-bf16", dict(dtype="bf16"), target_modules=ALL),
    "adapter-f16": case("llama-f16", dict(dtype="f16", autocast=False), target_modules=ALL),
    "adapter-bf16": case("llama-bf16", dict(dtype="bf16", autocast=False), target_modules=ALL),
    "adapter-bf16-dora": case("llama-bf16", dict(dtype="bf16", autocast=False), target_modules=ALL, use_dora=True),
    "adapter-name": case("llama", dict(adapter="story-2"), target_modules=QV),
    "adapter-name-save": case("llama-rope3", dict(adapter="story"), target_modules=QV, modules_to_save=["lm_head"], use_dora=True),
    "adapter-bin": case("llama", dict(format="bin"), target_modules=ALL),
    "adapter-bin-bf16": case("llama-bf16", dict(dtype="bf16", autocast=False, format="bin"), target_modules=ALL),
    # Other families.
    "gpt2-default": case("gpt2"),
    "gpt2-all-linear": case("gpt2", target_modules="all-linear"),
    "gpt2-dora": case("gpt2", target_modules=["c_attn", "c_proj", "c_fc"], use_dora=True, fan_in_fan_out=True),
    "gpt2-bias-save": case("gpt2", target_modules=["c_attn"], bias="all", modules_to_save=["ln_f"], fan_in_fan_out=True),
    "gpt2-positions": case("gpt2", target_modules=["wpe", "c_attn"], fan_in_fan_out=True),
    "gpt2-rslora-pattern": case("gpt2", target_modules=["c_attn", "c_fc"], use_rslora=True, rank_pattern={"c_fc": 2}, fan_in_fan_out=True),
    "gemma-default": case("gemma"),
    "gemma-all-linear-dora": case("gemma", target_modules="all-linear", use_dora=True),
    "gemma-save-norms": case("gemma", target_modules=QV, modules_to_save=["input_layernorm"]),
    "gemma2-all-linear": case("gemma2", target_modules="all-linear"),
    "gemma3-all-linear": case("gemma3_text", target_modules="all-linear"),
    "phi3-fused": case("phi3", target_modules=["qkv_proj", "gate_up_proj", "o_proj", "down_proj"]),
    "mistral-default": case("mistral"),
    "qwen2-bias": case("qwen2", target_modules=QV, bias="lora_only"),
    "qwen3-all-linear": case("qwen3", target_modules="all-linear"),
    "neox-default": case("gpt_neox"),
    "opt-default": case("opt"),
    "bert-classifier": case("bert", target_modules=["query", "value"], **SEQ),
    "bert-all-linear-dora": case("bert", target_modules="all-linear", use_dora=True, bias="all", **SEQ),
    "roberta-classifier": case("roberta", target_modules=["query", "value"], **SEQ),
    "modernbert-classifier": case("modernbert", target_modules=["Wqkv", "Wi", "Wo"], **SEQ),
    # Convolutions.
    "conv": case("conv", target_modules=["conv", "down", "point"]),
    "conv-rslora-pattern": case("conv", target_modules=["conv", "down", "head"], lora_alpha=8, use_rslora=True, rank_pattern={"down": 6}),
    "conv-dora": case("conv", target_modules=["conv", "down", "point", "head"], use_dora=True),
    "conv-grouped": case("conv", target_modules=["grouped"]),
    "conv-1d": case("conv", target_modules=["line", "head"]),
    "conv-save-bias": case("conv", target_modules=["conv"], bias="lora_only", modules_to_save=["head"]),
}
