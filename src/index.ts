/** @file The public API of Lorikeet for Node.js. */
export { LorikeetError } from "./errors.ts";
export { type DType, type TypedArray } from "./tensor/dtype.ts";
export { tensor, type Tensor } from "./tensor/tensor.ts";
export { type Adapter } from "./adapter/adapter.ts";
export { type CombinationType, combine, type CombineOptions } from "./adapter/combine.ts";
export { lora, type LoraConfig, type LoraInit } from "./adapter/lora-config.ts";
export { fit, type FitOptions } from "./layers/fit.ts";
export type { LayerOptions } from "./layers/layer-options.ts";
export { LoraConv1d, LoraConv2d, type LoraConvOptions } from "./layers/lora-conv.ts";
export { LoraEmbedding, type LoraEmbeddingOptions } from "./layers/lora-embedding.ts";
export type { LoraLayer } from "./layers/lora-layer.ts";
export { LoraLinear, type LoraLinearOptions } from "./layers/lora-linear.ts";
export { type Message, type Role } from "./data/message.ts";
export { type SamplingOptions } from "./generate/sampling.ts";
export { type TrainEvent } from "./train/events.ts";
export {
  type AdapterChoice,
  type AdapterPrompt,
  type Adapters,
  type AdaptersOptions,
  openAdapters,
} from "./api/adapters.ts";
export { saveAdapter } from "./host/adapter-files.ts";
export { loadAnyAdapter as loadAdapter } from "./host/adapter-formats.ts";
export { type DeviceOptions } from "./api/open-engine.ts";
export { EMBEDDED_MODELS, loadModel, type LoadOptions } from "./api/load-model.ts";
export { type Model } from "./api/model.ts";
export { type GeneratedToken, type GenerateOptions } from "./api/answer-row.ts";
export { generate, openSession, type Session } from "./api/generate.ts";
export { exportGguf, merge, type MergeResult, mergeToGguf } from "./api/merge.ts";
export { exportOnnx, mergeToOnnx } from "./api/onnx-export.ts";
export { unmerge, type UnmergeResult } from "./api/unmerge.ts";
export { type ImagePipeline, loadPipeline, type WeightedAdapter } from "./api/image-pipeline.ts";
export { type ImageSession, openImageSession } from "./api/image-session.ts";
export { imagine, type ImagineOptions, type MadeImage } from "./api/imagine.ts";
export { mergePipeline, type MergedPipeline, unmergePipeline } from "./api/merge-pipeline.ts";
export { saveImage } from "./api/save-image.ts";
export {
  type ImageAdapterFormat,
  loadImageAdapter,
  saveImageAdapter,
} from "./host/image-adapter-files.ts";
export { train, type TrainRun } from "./api/train.ts";
export { trainImages } from "./api/train-images.ts";
export { type TrainOptions } from "./api/train-options.ts";
