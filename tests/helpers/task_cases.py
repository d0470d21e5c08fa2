"""Every task of transformers with a small model of random weights; nothing is downloaded.

Each `Example` builds a pipeline, and gives inputs as clients send them and as the pipeline takes
them. Tokenizers and processors are built here too.
"""

from __future__ import annotations

import atexit
import copy
import io
import json
import random
import tempfile
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import small_models

#: weights large enough that answers differ from each other
SPREAD = 0.2
LABELS = ["calm", "busy", "full"]
NAMED = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SQUARE = {"height": 32, "width": 32}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: sampling rate of all sound here
RATE = 16_000
#: folder for files that transformers takes only by path; deleted at exit
FILES = tempfile.TemporaryDirectory()
atexit.register(FILES.cleanup)


class Named(dict[str, Any]):
    """Keyword arguments for the call of a pipeline."""


@dataclass(frozen=True)
class Form:
    """One form of input: as a client sends it, and as the pipeline takes it."""

    given: Callable[[random.Random], Any]
    called: Callable[[Any], Any] = lambda given: given


def answer(pipe: Any, called: Any, parameters: Mapping[str, Any]) -> Any:
    """Return the answer of a pipeline."""
    # transformers modifies its arguments.
    called, parameters = copy.deepcopy(called), copy.deepcopy(dict(parameters))
    if isinstance(called, Named):
        return pipe(**called, **parameters)
    return pipe(called, **parameters)


@dataclass(frozen=True)
class Example:
    """A task with a small model, inputs and parameters."""

    task: str
    build: Callable[[], Any]
    #: a random input as a client sends it: text, the bytes of a file, or JSON
    given: Callable[[random.Random], Any]
    #: the same input as the pipeline takes it
    called: Callable[[Any], Any] = lambda given: given
    #: sets of parameters of requests
    parameters: Sequence[Mapping[str, Any]] = ({},)
    #: the kind of model, if a task has several
    name: str = ""
    #: media types of the answer as a file
    files: Sequence[str] = ()
    #: other forms of input
    also: Sequence[Form] = ()

    @property
    def forms(self) -> list[Form]:
        """All forms of input."""
        return [Form(self.given, self.called), *self.also]

    def pipeline(self) -> Any:
        """Build a pipeline, with the same weights each time."""
        import torch

        torch.manual_seed(0)
        return self.build()

    def answer(self, pipe: Any, given: Any, parameters: Mapping[str, Any]) -> Any:
        """Return the answer of the pipeline itself."""
        return answer(pipe, self.called(given), parameters)

    def __str__(self) -> str:
        return self.name or self.task


# -- inputs -------------------------------------------------------------------------------


def picture(rng: random.Random, width: int = 0, height: int = 0) -> bytes:
    """Return a PNG file of noise, of a random size by default."""
    import numpy as np
    from PIL import Image

    shape = (height or rng.randint(20, 60), width or rng.randint(20, 60), 3)
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, shape)
    buffer = io.BytesIO()
    Image.fromarray(noise.astype("uint8")).save(buffer, format="PNG")
    return buffer.getvalue()


def seen(data: bytes) -> Any:
    """Open an image file as pipelines take it."""
    from PIL import Image

    return Image.open(io.BytesIO(data))


def recording(rng: random.Random, count: int = 0, rate: int = RATE) -> bytes:
    """Return a WAV file of noise, of one of three lengths by default."""
    import numpy as np

    count = count or rng.choice([2000, 3000, 20_000])
    noise = np.random.default_rng(rng.randrange(2**32)).integers(-20_000, 20_000, count)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(noise.astype("<i2").tobytes())
    return buffer.getvalue()


def heard(data: bytes) -> Any:
    """Read the samples of a WAV file as pipelines take them."""
    import numpy as np

    with wave.open(io.BytesIO(data)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (raw / np.float32(32768)).astype("float32")


def video(rng: random.Random, frames: int = 6) -> bytes:
    """Return an MP4 file of noise."""
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(frames):
            image = np.asarray(seen(picture(rng, 48, 32)))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def on_disk(data: bytes) -> str:
    """Write a file and return its path, which a video pipeline takes."""
    path = Path(tempfile.mkdtemp(dir=FILES.name)) / "clip.mp4"
    path.write_bytes(data)
    return str(path)


def sentence(rng: random.Random, most: int = 12) -> str:
    """Return random words."""
    return " ".join(rng.choices(small_models.WORDS, k=rng.randint(2, most)))


def text_for(task: str) -> Callable[[random.Random], str]:
    """Return a function that makes texts for a text task."""
    return lambda rng: small_models.inputs(task, 1, rng.randrange(2**32), most=12)[0]


# -- tokenizers ---------------------------------------------------------------------------


def words(*names: str) -> Any:
    """Copy the small tokenizer, with these model inputs after ``input_ids``."""
    made = copy.deepcopy(small_models.tokenizer())
    made.model_input_names = ["input_ids", *(names or ("attention_mask",))]
    return made


def vocabulary(tokens: Sequence[str], name: str) -> str:
    """Write a vocabulary file for a tokenizer class that needs one; return its path."""
    path = Path(tempfile.mkdtemp(dir=FILES.name)) / name
    ids = {token: index for index, token in enumerate(tokens)}
    path.write_text(json.dumps(ids) if name.endswith("json") else "\n".join(tokens), "utf-8")
    return str(path)


# -- pictures -----------------------------------------------------------------------------


def make(task: str, model: Any, **parts: Any) -> Any:
    """Build a pipeline of transformers around a model.

    If an answer is rounded or selected, give a model of double precision. In single precision a
    value at the edge may be rounded differently in a batch.
    """
    from transformers import pipeline

    return pipeline(task, model=model.eval(), device="cpu", **parts)


def image_classification() -> Any:
    import transformers as t

    config = t.ViTConfig(**SMALL, image_size=32, patch_size=8, initializer_range=SPREAD, **NAMED)
    processor = t.ViTImageProcessorPil(size=SQUARE)
    return make(
        "image-classification", t.ViTForImageClassification(config), image_processor=processor
    )


def image_feature_extraction() -> Any:
    import transformers as t

    config = t.ViTConfig(**SMALL, image_size=32, patch_size=8, initializer_range=SPREAD)
    processor = t.ViTImageProcessorPil(size=SQUARE)
    return make("image-feature-extraction", t.ViTModel(config), image_processor=processor)


#: an encoder of two levels, for depth and segmentation
LEVELS = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 8,
}


def depth_estimation() -> Any:
    import transformers as t

    model = t.GLPNForDepthEstimation(t.GLPNConfig(**LEVELS, initializer_range=SPREAD))
    processor = t.GLPNImageProcessorPil(size_divisor=32)
    return make("depth-estimation", model, image_processor=processor)


def image_segmentation() -> Any:
    import transformers as t

    config = t.SegformerConfig(**LEVELS, initializer_range=SPREAD, **NAMED)
    processor = t.SegformerImageProcessorPil(size=SQUARE)
    model = t.SegformerForSemanticSegmentation(config).double()
    return make("image-segmentation", model, image_processor=processor)


def object_detection() -> Any:
    import transformers as t

    config = t.YolosConfig(
        **SMALL,
        image_size=[32, 32],
        patch_size=8,
        num_detection_tokens=5,
        initializer_range=SPREAD,
        **NAMED,
    )
    processor = t.YolosImageProcessorPil(size=SQUARE)
    model = t.YolosForObjectDetection(config).double()
    return make("object-detection", model, image_processor=processor)


def text_and_vision() -> dict[str, Any]:
    """Return configurations of two encoders with a common space."""
    text = {**SMALL, "vocab_size": len(words()), "max_position_embeddings": 64}
    return {
        "text_config": {**text, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 2},
        "vision_config": {**SMALL, "image_size": 32, "patch_size": 8},
        "projection_dim": 32,
    }


def zero_shot_image_classification() -> Any:
    import transformers as t

    processor = t.CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE)
    model = t.CLIPModel(t.CLIPConfig(**text_and_vision()))
    parts = {"tokenizer": words(), "image_processor": processor}
    return make("zero-shot-image-classification", model, **parts)


def zero_shot_object_detection() -> Any:
    import transformers as t

    processor = t.OwlViTImageProcessorPil(size=SQUARE, crop_size=SQUARE, do_center_crop=False)
    model = t.OwlViTForObjectDetection(t.OwlViTConfig(**text_and_vision())).double()
    parts = {"tokenizer": words(), "image_processor": processor}
    return make("zero-shot-object-detection", model, **parts)


def keypoint_matching() -> Any:
    import transformers as t

    points = t.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 16, 16],
        decoder_hidden_size=16,
        descriptor_decoder_dim=16,
        max_keypoints=10,
        keypoint_threshold=0.0,
    )
    config = t.SuperGlueConfig(
        keypoint_detector_config=points,
        hidden_size=16,
        keypoint_encoder_sizes=[8, 16],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=2,
        sinkhorn_iterations=5,
        matching_threshold=0.0,
    )
    processor = t.SuperGlueImageProcessorPil(size=SQUARE)
    model = t.SuperGlueForKeypointMatching(config)
    return make("keypoint-matching", model, image_processor=processor)


def mask_generation() -> Any:
    import transformers as t

    config = t.SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "output_channels": 8,
            "num_pos_feats": 4,
            "mlp_dim": 16,
            "global_attn_indexes": [0],
            "window_size": 2,
        },
        prompt_encoder_config={
            "hidden_size": 8,
            "image_size": 32,
            "patch_size": 8,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_dim": 16,
            "iou_head_hidden_dim": 8,
        },
    )

    class KeepsSome(t.SamImageProcessorPil):  # type: ignore[misc]
        """A processor that keeps the first masks; dropping overlaps would need torchvision."""

        def post_process_for_mask_generation(
            self, masks: Any, scores: Any, boxes: Any, threshold: float
        ) -> tuple[Any, ...]:
            from transformers.models.sam.image_processing_pil_sam import _rle_to_mask

            kept = masks[:5]
            return [_rle_to_mask(mask) for mask in kept], scores[:5], kept, boxes[:5]

    side = {"longest_edge": 32}
    processor = KeepsSome(size=side, pad_size=SQUARE, mask_size=side)
    return make("mask-generation", t.SamModel(config), image_processor=processor)


def video_classification() -> Any:
    import transformers as t

    config = t.VideoMAEConfig(
        **SMALL,
        image_size=32,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
        initializer_range=SPREAD,
        **NAMED,
    )
    processor = t.VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE)
    model = t.VideoMAEForVideoClassification(config)
    return make("video-classification", model, image_processor=processor)


# -- sound --------------------------------------------------------------------------------

CONVOLUTIONS = {
    "conv_dim": [8, 8, 8],
    "conv_stride": [5, 4, 2],
    "conv_kernel": [10, 4, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def audio_classification() -> Any:
    import transformers as t

    config = t.Wav2Vec2Config(
        **SMALL, **CONVOLUTIONS, classifier_proj_size=16, initializer_range=SPREAD, **NAMED
    )
    model = t.Wav2Vec2ForSequenceClassification(config)
    return make("audio-classification", model, feature_extractor=t.Wav2Vec2FeatureExtractor())


def speech_recognition() -> Any:
    import transformers as t

    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    config = t.Wav2Vec2Config(
        **SMALL, **CONVOLUTIONS, vocab_size=len(tokens), initializer_range=0.5
    )
    return make(
        "automatic-speech-recognition",
        t.Wav2Vec2ForCTC(config).double(),
        tokenizer=t.Wav2Vec2CTCTokenizer(vocabulary(tokens, "vocab.json")),
        feature_extractor=t.Wav2Vec2FeatureExtractor(),
    )


def whisper() -> Any:
    import transformers as t

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
    special += ["<|translate|>", "<|notimestamps|>"]
    tokenizer = t.WhisperTokenizer({token: i for i, token in enumerate([*LETTERS, "Ġ"])}, [])
    tokenizer.add_tokens(special, special_tokens=True)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    config = t.WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=40,
        init_std=0.5,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
    )
    model = t.WhisperForConditionalGeneration(config)
    model.generation_config.max_length = None
    return make(
        "automatic-speech-recognition",
        model,
        tokenizer=tokenizer,
        feature_extractor=t.WhisperFeatureExtractor(feature_size=16, chunk_length=1),
    )


def zero_shot_audio_classification() -> Any:
    import transformers as t

    text = {**SMALL, "vocab_size": len(words()), "max_position_embeddings": 66, "pad_token_id": 0}
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 4,
        "hidden_size": 16,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
    }
    config = t.ClapConfig(
        text_config={**text, "projection_dim": 16},
        audio_config={**audio, "projection_dim": 16},
        projection_dim=16,
    )
    hears = t.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=160,
        max_length_s=2,  # of what is longer it takes a part at random
        fft_window_size=256,
        frequency_max=8000,
        truncation="rand_trunc",
    )
    parts = {"tokenizer": words(), "feature_extractor": hears}
    return make("zero-shot-audio-classification", t.ClapModel(config), **parts)


def text_to_audio() -> Any:
    import transformers as t

    tokens = ["<pad>", "<unk>", " ", *LETTERS]
    config = t.VitsConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        window_size=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        prior_encoder_num_flows=1,
        posterior_encoder_num_wavenet_layers=1,
        prior_encoder_num_wavenet_layers=1,
        duration_predictor_filter_channels=16,
        use_stochastic_duration_prediction=False,
        noise_scale=0.0,
        sampling_rate=8000,
    )
    tokenizer = t.VitsTokenizer(vocabulary(tokens, "vocab.json"), phonemize=False)
    return make("text-to-audio", t.VitsModel(config), tokenizer=tokenizer)


# -- text with something beside it ----------------------------------------------------------


def table_question_answering() -> Any:
    import transformers as t

    tokens = [*small_models.SPECIAL, "[EMPTY]", *small_models.WORDS, *LETTERS]
    tokenizer = t.TapasTokenizer(vocabulary(tokens, "vocab.txt"))
    config = t.TapasConfig(
        **SMALL,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        num_aggregation_labels=2,
        aggregation_labels={0: "NONE", 1: "SUM"},
        initializer_range=0.5,
    )
    model = t.TapasForQuestionAnswering(config)
    return make("table-question-answering", model, tokenizer=tokenizer)


def table(rng: random.Random) -> dict[str, Any]:
    """Return a table of words and a question about it."""
    rows = rng.randint(1, 3)
    columns = {name: rng.choices(small_models.WORDS, k=rows) for name in ("batch", "model")}
    return {"table": columns, "query": sentence(rng, 4)}


def document_question_answering() -> Any:
    import transformers as t

    config = t.LayoutLMConfig(
        **SMALL, vocab_size=len(words()), max_position_embeddings=64, initializer_range=0.5
    )
    tokenizer = words("token_type_ids", "attention_mask")
    model = t.LayoutLMForQuestionAnswering(config)
    return make("document-question-answering", model, tokenizer=tokenizer)


def document(rng: random.Random) -> dict[str, Any]:
    """Return a question about words with their boxes on a page."""
    count = rng.choice([3, 5])
    boxes = [[10 * i, 10, 10 * i + 9, 20] for i in range(count)]
    found = [list(pair) for pair in zip(rng.choices(small_models.WORDS, k=count), boxes)]  # noqa: B905
    return {"question": "the red batch", "word_boxes": found}


def language_model(vocabulary_size: int) -> dict[str, Any]:
    """Return the configuration of a small Llama with the special tokens of the small tokenizer."""
    return {
        **SMALL,
        "vocab_size": vocabulary_size,
        "max_position_embeddings": 256,
        "initializer_range": 0.5,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }


CHAT = (
    "{% for m in messages %}{{ m['role'] }} {% if m['content'] is string %}{{ m['content'] }} "
    "{% else %}{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
    "{% else %}<|MEDIA|> {% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def decision() -> Any:
    import transformers as t

    tokenizer = words()
    tokenizer.add_tokens(["Yes", "No"])
    tokenizer.chat_template = CHAT
    model = t.LlamaForCausalLM(t.LlamaConfig(**language_model(len(tokenizer) + 8)))
    return make("decision", model, tokenizer=tokenizer)


def request(rng: random.Random) -> dict[str, Any]:
    """Return a state and a question about it."""
    question = {"type": "noul", "instructions": sentence(rng, 4)}
    return {"state": sentence(rng), "questions": {"waits": question}}


def image_text_to_text() -> Any:
    import transformers as t

    tokenizer = words()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    template = CHAT.replace("<|MEDIA|>", "<image>")
    vision = t.CLIPVisionConfig(**text_and_vision()["vision_config"])
    config = t.LlavaConfig(
        vision_config=vision,
        text_config=t.LlamaConfig(**language_model(len(tokenizer) + 8)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    processor = t.LlavaProcessor(
        image_processor=t.CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    model = t.LlavaForConditionalGeneration(config)
    return make("image-text-to-text", model, processor=processor)


def any_to_any() -> Any:
    import transformers as t

    tokenizer = words()
    marks = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    tokenizer.add_tokens(marks, special_tokens=True)
    processor = t.Qwen2AudioProcessor(
        feature_extractor=t.WhisperFeatureExtractor(feature_size=16, chunk_length=1),
        tokenizer=tokenizer,
        chat_template=CHAT.replace("<|MEDIA|>", "<|AUDIO|>"),
    )
    config = t.Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 16,
            "max_source_positions": 50,
        },
        text_config={
            "model_type": "qwen2",
            "num_key_value_heads": 2,
            **language_model(len(tokenizer) + 8),
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = t.Qwen2AudioForConditionalGeneration(config)
    return make("any-to-any", model, processor=processor)


def file_chat(kind: str, data: bytes) -> list[dict[str, Any]]:
    """Return a chat about a file."""
    parts = [{"type": kind, kind: data}, {"type": "text", "text": "the queue waits"}]
    return [{"role": "user", "content": parts}]


def decode_chat(given: list[dict[str, Any]], decode: Callable[[bytes], Any]) -> Named:
    """Return the arguments for a chat with its file decoded."""
    [message] = given
    [first, text] = message["content"]
    content = [{**first, first["type"]: decode(first[first["type"]])}, text]
    return Named(text=[{**message, "content": content}])


# -- all of them --------------------------------------------------------------------------


def text_example(task: str) -> Example:
    """Return the example of a text task."""
    kinds = small_models.PARAMETERS[task]
    also = {"text-classification": [Form(pair)], "text-generation": [Form(chat)]}.get(task, [])
    return Example(task, lambda: text_pipeline(task), text_for(task), parameters=kinds, also=also)


def text_pipeline(task: str) -> Any:
    """Return a small text pipeline with a chat template."""
    made = small_models.pipeline(task)
    made.tokenizer.chat_template = CHAT
    return made


def pair(rng: random.Random) -> dict[str, str]:
    """Return two texts that are classified together."""
    return {"text": sentence(rng), "text_pair": sentence(rng)}


def chat(rng: random.Random) -> list[dict[str, str]]:
    """Return a chat of one message."""
    return [{"role": "user", "content": sentence(rng)}]


def image_example(task: str, build: Callable[[], Any], *kinds: Mapping[str, Any]) -> Example:
    """Return the example of a task that takes an image."""
    return Example(task, build, picture, seen, kinds or ({},))


def audio_example(task: str, build: Callable[[], Any], *kinds: Mapping[str, Any]) -> Example:
    """Return the example of a task that takes a recording."""
    return Example(task, build, recording, heard, kinds or ({},), also=[Form(waves, to_array)])


def waves(rng: random.Random) -> dict[str, Any]:
    """Return a recording as numbers."""
    return {"raw": heard(recording(rng, 3000)).tolist(), "sampling_rate": RATE}


def to_array(given: dict[str, Any]) -> Any:
    """Return samples as pipelines take them."""
    import numpy as np

    return np.asarray(given["raw"], dtype="float32")


LOOKED_FOR = {"candidate_labels": ["red", "the blue queue"]}
LISTENED_FOR = {"candidate_labels": ["one two", "three"], "hypothesis_template": "{} waits"}

EXAMPLES = [
    *map(text_example, small_models.TASKS),
    Example("table-question-answering", table_question_answering, table),
    Example(
        "document-question-answering",
        document_question_answering,
        document,
        parameters=({}, {"top_k": 2}),
    ),
    image_example("image-classification", image_classification, {}, {"top_k": 2}),
    image_example(
        "image-feature-extraction",
        image_feature_extraction,
        {},
        {"pool": True},
        {"return_tensors": True},
    ),
    image_example("image-segmentation", image_segmentation),
    image_example("object-detection", object_detection, {"threshold": 0.2}, {"threshold": 0.3}),
    Example(
        "depth-estimation",
        depth_estimation,
        lambda rng: picture(rng, 70, rng.choice([40, 70])),
        seen,
        files=("image/png",),
    ),
    image_example(
        "zero-shot-image-classification", zero_shot_image_classification, LOOKED_FOR, LISTENED_FOR
    ),
    image_example(
        "zero-shot-object-detection",
        zero_shot_object_detection,
        {**LOOKED_FOR, "threshold": 0.01},
        {"candidate_labels": "red,blue", "threshold": 0.01, "top_k": 3},
    ),
    Example(
        "keypoint-matching",
        keypoint_matching,
        lambda rng: [picture(rng, 40, 40), picture(rng, 40, 40)],
        lambda given: list(map(seen, given)),
    ),
    image_example(
        "mask-generation",
        mask_generation,
        {"points_per_crop": 16, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    ),
    Example("video-classification", video_classification, video, on_disk, ({}, {"top_k": 1})),
    audio_example("audio-classification", audio_classification, {}, {"top_k": 1}),
    audio_example(
        "zero-shot-audio-classification", zero_shot_audio_classification, LOOKED_FOR, LISTENED_FOR
    ),
    audio_example(
        "automatic-speech-recognition",
        speech_recognition,
        {},
        {"return_timestamps": "char"},
        {"chunk_length_s": 1},
    ),
    Example("text-to-audio", text_to_audio, sentence, files=("audio/wav",)),
    Example(
        "image-text-to-text",
        image_text_to_text,
        lambda rng: {"images": picture(rng), "text": f"<image> {sentence(rng)}"},
        lambda given: {**given, "images": seen(given["images"])},
        ({"max_new_tokens": 4, "generate_kwargs": {"do_sample": False}},),
        also=[
            Form(
                lambda rng: file_chat("image", picture(rng)), lambda given: decode_chat(given, seen)
            ),
            Form(sentence, lambda given: Named(text=given)),
        ],
    ),
    Example(
        "any-to-any",
        any_to_any,
        lambda rng: {"audio": recording(rng), "text": f"<|AUDIO|> {sentence(rng)}"},
        lambda given: {**given, "audio": heard(given["audio"])},
        ({"max_new_tokens": 4, "generate_kwargs": {"do_sample": False}},),
        also=[
            Form(
                lambda rng: file_chat("audio", recording(rng)),
                lambda given: decode_chat(given, heard),
            ),
            Form(sentence),
        ],
    ),
    Example("decision", decision, request),
]
#: other kinds of model for the same tasks
MORE = [
    Example(
        "automatic-speech-recognition",
        whisper,
        lambda rng: recording(rng, rng.choice([3000, 9000])),
        heard,
        ({"max_new_tokens": 6},),
        name="speech recognition by writing",
    )
]
BY_TASK = {example.task: example for example in EXAMPLES}
