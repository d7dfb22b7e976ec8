"""What pipelines want other than the types in their signatures say: which class, which width, which scheduler."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.every.calls import Input
from tests.support.every.sizes import WIDTH, XL_UNET


@dataclass(frozen=True)
class Choice:
    """A choice for the pipelines whose name matches.

    Attributes:
        pattern: A regular expression of the whole name.
        parts: Component -> arguments over the small ones. `"class"` names another class; a value that is no mapping is the
            component itself, such as None.
        call: Arguments of the call over those that the signature gives; None as a value is given as None, `ABSENT` not at all.
    """

    pattern: str
    parts: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


class Passes:
    """Stands in for a checker that is no part of the folder: every prompt and every picture passes."""

    def to(self, *_: object, **__: object) -> Passes:
        return self

    def check_text_safety(self, _: object) -> bool:
        return True

    def check_video_safety(self, frames: object) -> object:
        return frames


ABSENT: Final = "absent"
_SD: Final = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM: Final = {
    "class": "DDIMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    **_SD,
}
EULER: Final = {"class": "EulerDiscreteScheduler", **_SD}
_SDXL_TEXT: Final = {"unet": XL_UNET | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}}
_FLUX_VAE: Final = {
    "vae": {
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
}
_FLOW_UNIPC: Final = {
    "class": "UniPCMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}
_PICTURE: Final = Input("picture", (64, 64))
_SMALL: Final = Input("picture", (16, 16))
_SMALL_32: Final = Input("picture", (32, 32))
_TWO_LEVELS: Final = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}
_MOVQ: Final = {
    "norm_type": "spatial",
    "block_out_channels": (32, 32, 32, 32),
    "norm_num_groups": 8,
    "num_vq_embeddings": 16,
    "vq_embed_dim": 4,
    "latent_channels": 4,
}
_IF_UNET: Final = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 6,
    "cross_attention_dim": WIDTH,
    "encoder_hid_dim": WIDTH,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
    "attention_head_dim": 8,
}
_KANDINSKY_UNET: Final = {
    "in_channels": 4,
    "out_channels": 8,
    "addition_embed_type": "text_image",
    "encoder_hid_dim": WIDTH,
    "encoder_hid_dim_type": "text_image_proj",
    "cross_attention_dim": WIDTH,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 8,
    "block_out_channels": (32, 64),
    "norm_num_groups": 32,
}
_KANDINSKY_22_UNET: Final = {
    **_KANDINSKY_UNET,
    "addition_embed_type": "image",
    "encoder_hid_dim_type": "image_proj",
}
_UNCLIP_DECODER: Final = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 6,
    "class_embed_type": "identity",
    "attention_head_dim": 8,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
}
_SUPER_RES: Final = {
    "sample_size": 32,
    "in_channels": 6,
    "out_channels": 3,
    "resnet_time_scale_shift": "scale_shift",
    "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
}
_CASCADE_PRIOR: Final = {
    "conditioning_dim": 32,
    "block_out_channels": (32, 32),
    "num_attention_heads": (2, 2),
    "down_num_layers_per_block": (1, 1),
    "up_num_layers_per_block": (1, 1),
    "switch_level": (False,),
    "clip_image_in_channels": WIDTH,
    "clip_text_in_channels": WIDTH,
    "clip_text_pooled_in_channels": WIDTH,
    "dropout": (0.0, 0.0),
    "in_channels": 4,
    "out_channels": 4,
}
_CASCADE_DECODER: Final = {
    "in_channels": 4,
    "out_channels": 4,
    "conditioning_dim": 16,
    "block_out_channels": (16, 32),
    "num_attention_heads": (-1, 2),
    "down_num_layers_per_block": (1, 1),
    "up_num_layers_per_block": (1, 1),
    "down_blocks_repeat_mappers": (1, 1),
    "up_blocks_repeat_mappers": (1, 1),
    "block_types_per_layer": (
        ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
        ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
    ),
    "switch_level": None,
    "clip_text_in_channels": None,
    "clip_text_pooled_in_channels": WIDTH,
    "clip_image_in_channels": None,
    "effnet_in_channels": 4,
    "patch_size": 2,
    "kernel_size": 3,
    "timestep_conditioning_type": ("sca",),
    "dropout": (0.1, 0.1),
    "clip_seq": 4,
}

CHOICES: Final = (
    # What whole families have in common.
    Choice(r"StableDiffusionXL.*|LEditsPP.*XL|.*SDXLPipeline", _SDXL_TEXT),
    Choice(r"StableDiffusionXLControlNet(?!XS).*", {"controlnet": XL_UNET}),
    Choice(
        r"(Flux(?!2)|Chroma|Ovis|HiDream|Lumina2|StableDiffusion3|ZImage|LongCatImage|VisualCloze|Bria|GlmImage|CogView).*",
        _FLUX_VAE,
    ),
    Choice(r"StableDiffusion3.*|HiDream.*", {"text_encoder_3": {"d_model": 2 * WIDTH}}),
    Choice(r"HiDream.*", {"text_encoder_3": {"d_model": WIDTH}}),
    Choice(r"(ZImage|AceStep).*", {"text_encoder": {"class": "Qwen3Model"}}),
    Choice(r"ZImage.*|AceStep.*", {"tokenizer": {"class": "Qwen2Tokenizer"}}),
    Choice(r".*Inpaint.*", call={"padding_mask_crop": ABSENT}),
    # Pictures that a pipeline works on, where its name does not say so.
    Choice(
        r"CycleDiffusion.*|.*InstructPix2Pix.*|.*Depth2Img.*|.*UpscalePipeline|.*SuperResolutionPipeline|I2VGenXL.*"
        r"|StableDiffusion(XL)?Adapter.*|UnCLIPImageVariation.*|StableDiffusionControlNetXS.*",
        call={"image": _PICTURE},
    ),
    # Stable Diffusion's relatives.
    Choice(r"CycleDiffusion.*", call={"eta": 0.1}),
    Choice(r"StableDiffusion(XL)?InstructPix2Pix.*", {"unet": {"in_channels": 8}}),
    Choice(r"StableDiffusionDepth2Img.*", {"unet": {"in_channels": 5}}),
    Choice(
        r"PIAPipeline",
        {"motion_adapter": {"conv_in_channels": 9, "class": "MotionAdapter"}},
        {"image": _PICTURE},
    ),
    Choice(
        r"StableDiffusionUpscale.*",
        {"unet": {"in_channels": 7, "num_class_embeds": 1000}, "vae": _TWO_LEVELS},
        {"image": _SMALL},
    ),
    Choice(
        r"StableDiffusionLatentUpscale.*",
        {
            "scheduler": EULER,
            "unet": {
                "in_channels": 8,
                "time_cond_proj_dim": 128 + WIDTH,
                "conv_in_kernel": 1,
                "conv_out_kernel": 1,
                "out_channels": 5,
            },
        },
        {"image": _PICTURE},
    ),
    Choice(
        r"StableDiffusionXLAdapter.*",
        {
            "adapter": {
                "adapter_type": "full_adapter_xl",
                "channels": [16, 32],
                "downscale_factor": 16,
            }
        },
    ),
    Choice(
        r"StableDiffusionXLControlNetUnion.*",
        {"controlnet": {"num_control_type": 2}},
        {"control_mode": [0], "control_image": [Input("picture", (64, 64), 3)]},
    ),
    Choice(
        r"StableDiffusionXLControlNetXS.*",
        {
            "unet": {"layers_per_block": 2},
            "controlnet": {
                "cross_attention_dim": 2 * WIDTH,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "transformer_layers_per_block": (1, 2),
                "use_linear_projection": True,
                "num_attention_heads": (1, 2),
            },
        },
    ),
    Choice(
        r"StableDiffusionControlNetXS.*",
        {
            "unet": {"use_linear_projection": True, "layers_per_block": 2},
            "controlnet": {"use_linear_projection": True},
        },
    ),
    Choice(
        r"StableDiffusionGLIGEN.*",
        {"unet": {"attention_type": "gated"}},
        {"gligen_phrases": ["a hat"], "gligen_boxes": [[0.1, 0.2, 0.5, 0.6]]},
    ),
    Choice(
        r"StableDiffusionGLIGENTextImage.*",
        {"unet": {"attention_type": "gated-text-image"}},
        {"gligen_images": [_PICTURE]},
    ),
    Choice(
        r"StableDiffusionImageVariation.*|PaintByExample.*|StableDiffusionImg2ImgVariation.*",
        {"feature_extractor": {}},
    ),
    Choice(
        r"PaintByExample.*",
        {"unet": {"in_channels": 9}},
        {"example_image": Input("picture", (64, 64), 5)},
    ),
    Choice(
        r"StableDiffusionLDM3D.*",
        {"vae": {"in_channels": 6, "out_channels": 6}, "image_encoder": None},
    ),
    Choice(
        r"StableDiffusionAttendAndExcite.*",
        call={"token_indices": [2], "max_iter_to_alter": 1, "attn_res": [4, 4]},
    ),
    Choice(
        r"StableDiffusionParadigms.*",
        {"scheduler": {"class": "DDIMParallelScheduler"}},
        {"parallel": 2},
    ),
    Choice(
        r"LatentConsistency.*",
        {"unet": {"time_cond_proj_dim": 16}, "scheduler": {"class": "LCMScheduler", **_SD}},
    ),
    Choice(r"LatentConsistencyModelImg2Img.*", call={"num_inference_steps": 4}),
    Choice(
        r"Marigold.*",
        {"unet": {"in_channels": 8}},
        {"processing_resolution": 64, "num_inference_steps": 2},
    ),
    Choice(
        r"MarigoldIntrinsics.*",
        {
            "unet": {"in_channels": 12, "out_channels": 8},
            "prediction_type": "intrinsics",
            "target_properties": {
                "class": "dict",
                "target_names": ["albedo", "material"],
                "albedo": {"prediction_space": "srgb", "up_to_scale": False},
                "material": {
                    "prediction_space": "stack",
                    "sub_target_names": ["roughness", "metallicity", None],
                },
            },
        },
    ),
    Choice(
        r"MarigoldDepth.*",
        {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True},
    ),
    Choice(r"MarigoldNormals.*", {"prediction_type": "normals"}),
    Choice(
        r"TextToVideoZero.*", call={"video_length": 2, "t0": 1, "t1": 3, "num_inference_steps": 4}
    ),
    Choice(
        r"StableVideoDiffusion.*",
        {
            "image_encoder": {"image_size": 224, "patch_size": 56},
            "scheduler": {
                **_SD,
                "prediction_type": "v_prediction",
                "use_karras_sigmas": True,
                "timestep_type": "continuous",
                "timestep_spacing": "leading",
                "sigma_min": 0.002,
                "sigma_max": 700.0,
                "interpolation_type": "linear",
                "steps_offset": 1,
            },
        },
        {"num_frames": 2, "decode_chunk_size": 2},
    ),
    Choice(r"I2VGenXL.*", {"feature_extractor": {}}, {"num_frames": 4}),
    # Pixels, without an autoencoder.
    Choice(r"PNDMPipeline", {"scheduler": {"class": "PNDMScheduler", "skip_prk_steps": True}}),
    Choice(
        r"DanceDiffusion.*",
        {
            "unet": {"block_out_channels": (32, 32, 64), "extra_in_channels": 64},
            "scheduler": {"class": "IPNDMScheduler"},
        },
        {"audio_length_in_s": 0.25},
    ),
    Choice(r"LDMPipeline", {"unet": {"in_channels": 4, "out_channels": 4}}),
    Choice(
        r"LDMSuperResolution.*",
        {
            "unet": {"in_channels": 6, "out_channels": 3},
            "vqvae": {"latent_channels": 3, "vq_embed_dim": 3},
        },
        {"image": _SMALL_32},
    ),
    Choice(
        r"LDMTextToImage.*",
        {
            "bert": {"class": "CLIPTextModel"},
            "tokenizer": {"class": "CLIPTokenizer"},
            "unet": {"class": "UNet2DConditionModel"},
            "vqvae": {"class": "AutoencoderKL"},
        },
    ),
    Choice(
        r"IF.*",
        {
            "unet": _IF_UNET,
            "scheduler": {"class": "DDPMScheduler", "variance_type": "learned_range"},
            "image_noising_scheduler": {"class": "DDPMScheduler"},
            "tokenizer": {"model_max_length": 77},
            "safety_checker": None,
            "feature_extractor": None,
            "watermarker": None,
        },
        {"clean_caption": False},
    ),
    Choice(
        r"IF(Img2Img|Inpainting)?SuperResolution.*",
        {"unet": {"in_channels": 6, "class_embed_type": "timestep"}},
    ),
    Choice(r"IF(Img2Img|Inpainting).*", call={"image": _SMALL_32}),
    Choice(r"IF.*SuperResolution.*", call={"image": _SMALL}),
    Choice(r"IF(Img2Img|Inpainting)SuperResolution.*", call={"original_image": _SMALL_32}),
    Choice(r"IFInpainting.*", call={"mask_image": Input("mask", (32, 32))}),
    # Discrete tokens.
    Choice(
        r"Amused.*",
        {
            "scheduler": {"mask_token_id": 16},
            "text_encoder": {},
            "vqvae": {"latent_channels": 16, "vq_embed_dim": 16, "lookup_from_codebook": True},
        },
    ),
    Choice(
        r"VQDiffusion.*",
        {
            "scheduler": {"num_vec_classes": 17, "num_train_timesteps": 100},
            "transformer": {"num_vector_embeds": 17},
            "vqvae": {"latent_channels": 4, "num_vq_embeddings": 16},
        },
        {"truncation_rate": 0.9},
    ),
    # Kandinsky 2, unCLIP, Würstchen, Shap-E: priors and decoders.
    Choice(
        r"Kandinsky(?!3|5|6).*|UnCLIP.*|ShapE.*|StableUnCLIP.*",
        {"prior_image_processor": {}, "image_processor": {}},
    ),
    Choice(r"Kandinsky(?!3|5|6|V22).*", {"unet": _KANDINSKY_UNET, "movq": _MOVQ}),
    Choice(r"KandinskyV22.*", {"unet": _KANDINSKY_22_UNET, "movq": _MOVQ}),
    Choice(r"Kandinsky(V22)?Inpaint.*", {"unet": {"in_channels": 9}}),
    Choice(
        r"KandinskyV22Controlnet.*",
        {"unet": {"in_channels": 8, "addition_embed_type": "image_hint"}},
    ),
    Choice(
        r"Kandinsky(V22)?(Img2Img|Inpaint|Controlnet|ControlnetImg2Img)?Pipeline",
        call={
            "image_embeds": Input("tensor", (1, WIDTH), 1),
            "negative_image_embeds": Input("tensor", (1, WIDTH), 2),
        },
    ),
    Choice(r"KandinskyV22Controlnet.*", call={"hint": Input("tensor", (1, 3, 64, 64), 3)}),
    Choice(r"Kandinsky.*Combined.*", call={"prior_num_inference_steps": 2}),
    Choice(r"Kandinsky3.*", {"movq": _MOVQ}),
    Choice(
        r"UnCLIP.*",
        {
            "decoder": _UNCLIP_DECODER,
            "super_res_first": _SUPER_RES,
            "super_res_last": _SUPER_RES,
            "prior_scheduler": {"prediction_type": "sample", "num_train_timesteps": 5},
            "decoder_scheduler": {
                "variance_type": "learned_range",
                "prediction_type": "epsilon",
                "num_train_timesteps": 100,
            },
            "super_res_scheduler": {
                "variance_type": "fixed_small_log",
                "prediction_type": "epsilon",
                "num_train_timesteps": 100,
            },
        },
        {"decoder_num_inference_steps": 2, "super_res_num_inference_steps": 2},
    ),
    Choice(r"UnCLIPPipeline", call={"prior_num_inference_steps": 2}),
    Choice(
        r"ShapE.*",
        {
            "prior": {
                "num_embeddings": 1,
                "embedding_proj_dim": WIDTH,
                "time_embed_dim": 64,
                "embedding_dim": WIDTH,
                "clip_embed_dim": WIDTH * 2,
                "additional_embeddings": 0,
                "time_embed_act_fn": "gelu",
                "norm_in_type": "layer",
                "encoder_hid_proj_type": None,
                "added_emb_type": None,
            },
            "scheduler": {
                "beta_schedule": "exp",
                "num_train_timesteps": 1024,
                "prediction_type": "sample",
                "use_karras_sigmas": True,
                "clip_sample": True,
                "clip_sample_range": 1.0,
            },
        },
        {"frame_size": 8, "output_type": "latent"},
    ),
    Choice(r"StableCascade.*", {"prior_feature_extractor": None, "prior_image_encoder": None}),
    Choice(
        r"StableCascade(Prior|Combined).*", {"prior": _CASCADE_PRIOR, "prior_prior": _CASCADE_PRIOR}
    ),
    Choice(r"StableCascade(Decoder|Combined).*", {"decoder": _CASCADE_DECODER}),
    Choice(r"StableCascadeDecoder.*", call={"image_embeddings": Input("tensor", (1, 4, 4, 4), 1)}),
    Choice(
        r"StableCascadeCombined.*|WuerstchenCombined.*",
        call={"prior_num_inference_steps": 2, "height": 128, "width": 128},
    ),
    Choice(r"WuerstchenDecoder.*", call={"image_embeddings": Input("tensor", (1, 4, 6, 6), 1)}),
    Choice(r"WuerstchenPrior.*", call={"height": 128, "width": 128}),
    Choice(
        r"UniDiffuser.*", {"clip_image_processor": {}, "clip_tokenizer": {}, "text_tokenizer": {}}
    ),
    Choice(r"VersatileDiffusion.*", {"text_unet": {"class": "UNetFlatConditionModel"}}),
    # Image transformers.
    Choice(
        r"Flux(Control|ControlImg2Img)Pipeline",
        {"transformer": {"in_channels": 32, "out_channels": 16}},
    ),
    Choice(r"FluxControlInpaint.*", {"transformer": {"in_channels": 32, "out_channels": 16}}),
    Choice(
        r"FluxFill.*|VisualCloze.*",
        {"transformer": {"in_channels": 16 + 16 + 256, "out_channels": 16}},
    ),
    Choice(
        r"FluxFill.*",
        call={
            "image": _PICTURE,
            "mask_image": Input("mask", (64, 64)),
            "strength": ABSENT,
            "num_inference_steps": 2,
        },
    ),
    Choice(r"FluxKontext.*", call={"_auto_resize": False, "max_area": 64 * 64}),
    Choice(
        r"VisualCloze.*",
        call={
            "task_prompt": "make it red",
            "content_prompt": "a fox",
            "image": [[_PICTURE, _PICTURE], [_PICTURE, None]],
        },
    ),
    Choice(r"VisualCloze.*", {"resolution": 32}),
    Choice(r"VisualClozePipeline", call={"upsampling_height": 64, "upsampling_width": 64}),
    Choice(
        r"FluxPriorRedux.*", {"image_embedder": {"txt_in_features": 4096}, "feature_extractor": {}}
    ),
    Choice(r"HunyuanDiT.*", {"text_encoder_2": {}, "tokenizer_2": {"model_max_length": 256}}),
    Choice(
        r"HunyuanImageRefiner.*",
        {
            "transformer": {
                "in_channels": 32,
                "out_channels": 16,
                "rope_axes_dim": (4, 6, 6),
                "patch_size": (1, 1, 1),
                "text_embed_2_dim": None,
                "guidance_embeds": True,
            }
        },
        {"image": _PICTURE},
    ),
    Choice(r"CogView3Plus.*", {"scheduler": {"class": "CogVideoXDDIMScheduler"}}),
    Choice(
        r"CogView4.*",
        {
            "text_encoder": {"num_hidden_layers": 2},
            "scheduler": {"base_shift": 0.25, "max_shift": 0.75, "use_dynamic_shifting": True},
        },
    ),
    Choice(r"CogView4.*", call={"negative_prompt": "blurry"}),
    Choice(r"CogView4Control.*", {"transformer": {"in_channels": 8}}),
    Choice(
        r"StableDiffusion3Inpaint.*",
        {"transformer": {"in_channels": 16, "out_channels": 16}, "vae": {"latent_channels": 16}},
    ),
    Choice(r"ZImageControlNetInpaint.*", {"controlnet": {"control_in_dim": 9}}),
    Choice(
        r"QwenImageControlNetInpaint.*",
        {"controlnet": {"extra_condition_channels": 4}},
        {"control_mask": Input("mask", (64, 64)), "image": ABSENT, "mask_image": ABSENT},
    ),
    Choice(
        r"StableDiffusion3ControlNetInpainting.*",
        {"controlnet": {"extra_conditioning_channels": 1}},
        {"control_mask": Input("mask", (64, 64)), "image": ABSENT, "mask_image": ABSENT},
    ),
    Choice(
        r"SanaSprint.*",
        {
            "scheduler": {"class": "SCMScheduler"},
            "transformer": {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"},
        },
        {"num_inference_steps": 2, "strength": 0.6},
    ),
    Choice(r"SanaSprintPipeline", call={"strength": ABSENT}),
    Choice(
        r"SanaSprintImg2Img.*",
        call={"num_inference_steps": 4, "max_timesteps": 1.5707963, "intermediate_timesteps": None},
    ),
    Choice(r"Sana(?!WM).*", {"tokenizer": {}}, {"complex_human_instruction": None}),
    Choice(
        r"Sana(ImageTo)?Video.*",
        {"vae": {"class": "AutoencoderKLWan"}},
        {"frames": 5, "height": 32, "width": 32},
    ),
    Choice(
        r"PRX.*",
        {
            "text_encoder": {"class": "T5GemmaEncoder"},
            "tokenizer": {"class": "GemmaTokenizer"},
            "vae": {"class": "AutoencoderKL", "shift_factor": 0.1},
        },
    ),
    Choice(
        r"PRXPixel.*",
        {
            "text_encoder": {"class": "Qwen3Model"},
            "tokenizer": {"class": "Qwen2Tokenizer"},
            "transformer": {"in_channels": 3, "patch_size": 8},
            "vae": ABSENT,
        },
    ),
    Choice(r"Ideogram4.*", call={"guidance_schedule": [7.0, 3.0], "max_sequence_length": 128}),
    Choice(
        r"Ideogram4.*",
        {"text_encoder": {"class": "Qwen3VLModel"}, "tokenizer": {"class": "Qwen2Tokenizer"}},
    ),
    Choice(
        r"Flux2Klein.*",
        {"text_encoder": {"num_hidden_layers": 3}},
        {"text_encoder_out_layers": [1, 2, 3]},
    ),
    Choice(r"Flux2KleinInpaint.*", call={"strength": 0.6}),
    Choice(r"Bria(Fibo|FiboEdit)Pipeline", {"text_encoder": {"vocab_size": 128256}}),
    Choice(
        r"BriaFiboEdit.*",
        call={"prompt": '{"edit_instruction": "make it red"}', "_auto_resize": False},
    ),
    Choice(r"Krea2.*", {"text_encoder_select_layers": [1, 2]}),
    Choice(r"OmniGen.*", {"tokenizer": {}}),
    # Video transformers.
    Choice(
        r"Wan.*|LucyEdit.*|SkyReels.*|AnyFlow.*|Helios.*|ChronoEdit.*",
        call={"height": 32, "width": 32},
    ),
    Choice(r"(Wan|WanImageToVideo|WanVACE|LucyEdit)Pipeline", {"transformer": {}}),
    Choice(r"WanImageToVideo.*", {"transformer": {"in_channels": 36}}),
    Choice(r"LucyEdit.*", {"transformer": {"in_channels": 32}}),
    Choice(
        r"WanAnimate.*",
        {"image_processor": {}, "scheduler": _FLOW_UNIPC},
        {
            "pose_video": Input("video", (5, 32, 32), 2),
            "face_video": Input("video", (5, 16, 16), 4),
            "segment_frame_length": 5,
            "image": Input("picture", (32, 32)),
        },
    ),
    Choice(
        r"WanVACE.*",
        call={"video": Input("video", (5, 32, 32)), "mask": Input("masks", (5, 32, 32))},
    ),
    Choice(
        r"(WanVideoToVideo|LucyEdit|SkyReelsV2DiffusionForcingVideoToVideo).*",
        call={"video": Input("video", (5, 32, 32))},
    ),
    Choice(r"SkyReels.*", {"scheduler": _FLOW_UNIPC}, {"num_frames": 5}),
    Choice(r"SkyReelsV2DiffusionForcing.*", call={"base_num_frames": 5, "ar_step": 0}),
    Choice(
        r"SkyReelsV2DiffusionForcingVideoToVideo.*",
        call={"overlap_history": 5, "num_frames": 9, "base_num_frames": 9},
    ),
    Choice(
        r"SkyReelsV2ImageToVideo.*",
        {"transformer": {"in_channels": 36, "image_dim": WIDTH}, "image_processor": {}},
    ),
    Choice(r"ChronoEdit.*", {"image_processor": {}}, {"image": Input("picture", (32, 32))}),
    Choice(r"AnyFlowFAR.*", call={"chunk_partition": [1, 1], "num_frames": 5}),
    Choice(r"HeliosPipeline", {"scheduler": {"stages": 1, "stage_range": [0, 1]}}),
    Choice(
        r"HeliosPyramid.*",
        call={"height": 64, "width": 64, "pyramid_num_inference_steps_list": [1, 1, 1]},
    ),
    Choice(r"HeliosPipeline", call={"num_frames": 9, "num_latent_frames_per_chunk": 3}),
    Choice(r"HeliosPyramid.*", call={"num_frames": 9, "num_latent_frames_per_chunk": 3}),
    Choice(r"CogVideoX.*", call={"num_frames": 9}),
    Choice(
        r"CogVideoX(Pipeline|VideoToVideoPipeline)",
        {
            "transformer": {"use_rotary_positional_embeddings": True},
            "scheduler": {"class": "CogVideoXDDIMScheduler"},
            "tokenizer": {"model_max_length": 24},
        },
        {"max_sequence_length": 24},
    ),
    Choice(
        r"CogVideoX(FunControl|ImageToVideo)Pipeline",
        {
            "transformer": {"in_channels": 8, "use_rotary_positional_embeddings": True},
            "scheduler": {"class": "CogVideoXDDIMScheduler"},
        },
        {"max_sequence_length": 24},
    ),
    Choice(
        r"CogVideoXFunControl.*",
        call={"control_video": Input("video", (9, 64, 64), 3), "num_frames": ABSENT},
    ),
    Choice(
        r"CogVideoXVideoToVideo.*",
        call={"video": Input("video", (9, 64, 64)), "num_frames": ABSENT},
    ),
    Choice(
        r"Allegro.*",
        {
            "transformer": {
                "cross_attention_dim": 24,
                "num_attention_heads": 2,
                "attention_head_dim": 12,
            }
        },
        {"num_frames": 8},
    ),
    Choice(
        r"Mochi.*",
        {"vae": {"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}},
        {"num_frames": 7, "height": 16, "width": 16, "max_sequence_length": 16},
    ),
    Choice(r"LattePipeline", call={"video_length": 2}),
    Choice(r"Hunyuan(Video|Skyreels).*", call={"height": 32, "width": 32, "num_frames": 5}),
    Choice(r"HunyuanVideoFramepack.*", call={"latent_window_size": 3, "num_frames": 9}),
    Choice(
        r"HunyuanVideo15ImageToVideo.*",
        call={"image": Input("picture", (32, 32)), "height": ABSENT, "width": ABSENT},
    ),
    Choice(
        r"HunyuanVideoImageToVideo.*",
        {"transformer": {"image_condition_type": "token_replace"}, "image_processor": {}},
        {"image": Input("picture", (32, 32))},
    ),
    Choice(r"HunyuanSkyreels.*", {"transformer": {"in_channels": 8}}),
    Choice(r"Cosmos.*", {"safety_checker": Passes()}, {"height": 32, "width": 32}),
    Choice(
        r"EasyAnimate.*",
        {"text_encoder": {"class": "Qwen2VLForConditionalGeneration"}},
        {"num_frames": 5, "negative_prompt": "blurry"},
    ),
    Choice(
        r"EasyAnimateControl.*",
        {"transformer": {"in_channels": 8}},
        {"control_video": Input("video", (5, 64, 64), 3)},
    ),
    Choice(
        r"EasyAnimateInpaint.*",
        {"transformer": {"in_channels": 9}},
        {
            "video": Input("tensor", (1, 3, 5, 64, 64)),
            "mask_video": Input("tensor", (1, 1, 5, 64, 64), 1),
        },
    ),
    Choice(
        r"LTX2(Condition|HDR|ImageToVideo|InContext|DFR)?Pipeline",
        call={"num_frames": 5, "frame_rate": 25.0},
    ),
    Choice(r"LTX2ImageToVideo.*", call={"image_crf": 0}),
    Choice(r"LTX(2)?LatentUpsample.*", call={"video": Input("video", (9, 64, 64))}),
    # Sound.
    Choice(
        r"AudioLDM.*|MusicLDM.*",
        {"unet": {}, "vae": {"in_channels": 1, "out_channels": 1}, "feature_extractor": {}},
        {"audio_length_in_s": 0.25},
    ),
    Choice(
        r"(AudioLDM|MusicLDM)Pipeline",
        {
            "unet": {
                "class_embed_type": "simple_projection",
                "projection_class_embeddings_input_dim": WIDTH,
                "class_embeddings_concat": True,
                "cross_attention_dim": (16, 32),
            }
        },
    ),
    Choice(
        r"AudioLDM2.*",
        {
            "text_encoder": {"class": "ClapModel"},
            "text_encoder_2": {"class": "T5EncoderModel"},
            "tokenizer_2": {"class": "T5Tokenizer"},
            "language_model": {},
        },
        {"max_new_tokens": 8},
    ),
    Choice(r"MusicLDM.*", {"text_encoder": {"class": "ClapModel"}}),
    Choice(r"StableAudio.*", call={"audio_start_in_s": 0.0, "audio_end_in_s": 0.25}),
    Choice(
        r"StableAudio3.*",
        call={
            "audio_start_in_s": ABSENT,
            "audio_end_in_s": ABSENT,
            "duration": 0.25,
            "num_inference_steps": 2,
        },
    ),
    Choice(
        r"StableAudio3(AudioToAudio|Inpaint).*", call={"audio": Input("tensor", (1, 2, 256), 1)}
    ),
    Choice(
        r"StableAudio3Inpaint.*",
        call={"mask_start_seconds": 0.05, "mask_end_seconds": 0.1, "mask": ABSENT},
    ),
    Choice(
        r"AceStep.*",
        {
            "scheduler": {"num_train_timesteps": 1, "shift": 1.0}
        },  # its model takes times from 0 to 1
        {"audio_duration": 0.25, "lyrics": "la la"},
    ),
    Choice(r"LongCatAudio.*", call={"audio_duration_s": 0.1}),
)


def chosen(pipeline: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts and call arguments for a pipeline; later choices win, key by key."""
    parts: dict[str, Any] = {}
    call: dict[str, Any] = {}
    for choice in CHOICES:
        if re.fullmatch(choice.pattern, pipeline):
            for name, value in choice.parts.items():
                known = parts.get(name)
                parts[name] = (
                    {**known, **value}
                    if isinstance(known, dict) and isinstance(value, dict)
                    else value
                )
            call.update(choice.call)
    return parts, call
