"""Trees of real models, of images and sound, and of low-rank adapters; see `models`."""

OTHERS = {
    "ViT in Flax": """
cls  1 1 768  vector
embedding/kernel  16 16 3 768  embedding
embedding/bias  768  embedding
Transformer/posembed_input/pos_embedding  1 197 768  position
encoderblock_0/LayerNorm_0/scale  768  norm
encoderblock_0/MultiHeadDotProductAttention_1/query/kernel  768 12 64  matrix  in out out
encoderblock_0/MultiHeadDotProductAttention_1/query/bias  12 64  norm
encoderblock_0/MultiHeadDotProductAttention_1/out/kernel  12 64 768  matrix  in in out
encoderblock_0/MultiHeadDotProductAttention_1/out/bias  768  norm
encoderblock_0/MlpBlock_3/Dense_0/kernel  768 3072  matrix  in out
encoderblock_0/MlpBlock_3/Dense_0/bias  3072  norm
encoderblock_0/MlpBlock_3/Dense_1/kernel  3072 768  matrix  in out
head/kernel  768 1000  head  in out
head/bias  1000  head
    """,
    "ViT in big_vision, scanned": """
pos_embedding  1 196 768  position
encoderblock/LayerNorm_0/scale  12 768  norm  batch out
encoderblock/LayerNorm_0/bias  12 768  norm  batch out
encoderblock/MultiHeadDotProductAttention_0/query/kernel  12 768 12 64  matrix  batch in out out
encoderblock/MultiHeadDotProductAttention_0/query/bias  12 12 64  norm  batch in out
encoderblock/MultiHeadDotProductAttention_0/out/kernel  12 12 64 768  matrix  batch in in out
encoderblock/MlpBlock_0/Dense_0/kernel  12 768 3072  matrix  batch in out
encoderblock/MlpBlock_0/Dense_0/bias  12 3072  norm  batch out
Transformer/encoder_norm/scale  768  norm
head/kernel  768 1000  head  in out
    """,
    "Swin, Hugging Face": """
swin.embeddings.patch_embeddings.projection.weight  96 3 4 4  embedding
swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table  169 3  position
swin.encoder.layers.0.blocks.0.attention.self.query.weight  96 96  matrix  out in
swin.encoder.layers.0.blocks.0.attention.self.query.bias  96  norm
swin.encoder.layers.0.blocks.0.intermediate.dense.weight  384 96  matrix  out in
swin.encoder.layers.0.blocks.0.intermediate.dense.bias  384  norm
swin.encoder.layers.0.downsample.reduction.weight  192 384  matrix  out in
swin.encoder.layers.0.downsample.norm.weight  384  norm
classifier.weight  1000 768  head  out in
    """,
    "U-Net of Stable Diffusion in Flax": """
conv_in/kernel  3 3 4 320  convolution
time_embedding/linear_1/kernel  320 1280  matrix  in out
time_embedding/linear_1/bias  1280  norm
time_embedding/linear_2/kernel  1280 1280  matrix  in out
down_blocks_0/resnets_0/conv1/kernel  3 3 320 320  convolution
down_blocks_0/resnets_0/norm1/scale  320  norm
down_blocks_0/resnets_0/time_emb_proj/kernel  1280 320  matrix  in out
down_blocks_0/attentions_0/transformer_blocks_0/attn2/to_k/kernel  768 320  matrix  in out
down_blocks_0/attentions_0/transformer_blocks_0/attn2/to_out_0/kernel  320 320  matrix  in out
down_blocks_0/attentions_0/transformer_blocks_0/ff/net_0/proj/kernel  320 2560  matrix  in out
down_blocks_0/attentions_0/transformer_blocks_0/ff/net_2/kernel  1280 320  matrix  in out
conv_norm_out/scale  320  norm
conv_out/kernel  3 3 320 4  convolution
    """,
    "DiT": """
        x_embedder.proj.weight              1152 4 2 2  embedding
        pos_embed                           1 256 1152  position
        t_embedder.mlp.0.weight             1152 256    matrix     out in
        t_embedder.mlp.0.bias               1152        norm
        y_embedder.embedding_table.weight   1001 1152   embedding
        blocks.0.attn.qkv.weight            3456 1152   matrix     out in
        blocks.0.attn.qkv.bias              3456        norm
        blocks.0.mlp.fc1.weight             4608 1152   matrix     out in
        blocks.0.mlp.fc1.bias               4608        norm
        blocks.0.adaLN_modulation.1.weight  6912 1152   matrix     out in
        blocks.0.adaLN_modulation.1.bias    6912        norm
    """,
    "ResNet-50 in Flax": """
        conv_init/kernel                           7 7 3 64    convolution
        bn_init/scale                              64          norm
        BottleneckResNetBlock_0/Conv_0/kernel      1 1 64 64   convolution
        BottleneckResNetBlock_0/Conv_1/kernel      3 3 64 64   convolution
        BottleneckResNetBlock_0/conv_proj/kernel   1 1 64 256  convolution
        BottleneckResNetBlock_0/BatchNorm_0/scale  64          norm
        head/kernel                                2048 1000   head         in out
    """,
    "wav2vec 2.0, Hugging Face": """
wav2vec2.masked_spec_embed  768  embedding
wav2vec2.feature_extractor.conv_layers.0.conv.weight  512 1 10  convolution  out in batch
wav2vec2.feature_extractor.conv_layers.0.layer_norm.weight  512  norm
wav2vec2.feature_projection.projection.weight  768 512  matrix  out in
wav2vec2.encoder.pos_conv_embed.conv.bias  768  embedding
wav2vec2.encoder.layers.0.attention.k_proj.weight  768 768  matrix  out in
wav2vec2.encoder.layers.0.feed_forward.intermediate_dense.weight  3072 768  matrix  out in
wav2vec2.encoder.layers.0.final_layer_norm.weight  768  norm
quantizer.codevectors  1 640 128  embedding
project_hid.weight  256 768  matrix  out in
lm_head.weight  32 768  head  out in
    """,
    "Whisper, Hugging Face": """
        model.encoder.conv1.weight                      384 80 3   convolution  out in batch
        model.encoder.conv1.bias                        384        norm
        model.encoder.embed_positions.weight            1500 384   embedding
        model.encoder.layers.0.self_attn.q_proj.weight  384 384    matrix       out in
        model.encoder.layers.0.fc1.weight               1536 384   matrix       out in
        model.encoder.layers.0.fc1.bias                 1536       norm
        model.decoder.embed_tokens.weight               51865 384  embedding
        proj_out.weight                                 51865 384  head         out in
    """,
    "VQ-VAE in Haiku": """
        vqvae/~/encoder/~/enc_1/w            4 4 3 64    convolution
        vqvae/~/encoder/~/enc_1/b            64          norm
        vqvae/~/pre_vq_conv/w                1 1 128 64  convolution
        vqvae/~/vector_quantizer/embeddings  64 512      embedding
        vqvae/~/decoder/~/dec_0/w            3 3 64 128  convolution
    """,
    "VQGAN": """
        encoder.conv_in.weight       128 3 3 3    convolution  out in batch batch
        encoder.mid.attn_1.q.weight  512 512 1 1  convolution  out in batch batch
        quantize.embedding.weight    1024 256     embedding
        quantize.codebook            1024 256     embedding
        post_quant_conv.weight       256 256 1 1  convolution  out in batch batch
    """,
    "transformer in Haiku": """
        transformer/embed/embeddings  32000 512  embedding
        transformer/h0_attn/query/w   512 1024   matrix     in out
        transformer/h0_attn/query/b   1024       norm
        transformer/h0_attn/linear/w  1024 512   matrix     in out
        transformer/h0_mlp/linear/w   512 2048   matrix     in out
        transformer/h0_mlp/linear/b   2048       norm
        transformer/h0_ln_1/scale     512        norm
        transformer/h0_ln_1/offset    512        norm
        transformer/linear/w          512 32000  head       in out
    """,
    "attention of nnx, with low-rank adapters": """
        layers/0/attn/query/kernel    512 8 64  matrix  in out out
        layers/0/attn/query/bias      8 64      norm
        layers/0/attn/out/kernel      8 64 512  matrix  in in out
        layers/0/attn/query_ln/scale  64        norm
        layers/0/mlp/kernel           512 2048  matrix  in out
        layers/0/mlp/lora_a           512 8     matrix  in out
        layers/0/mlp/lora_b           8 2048    matrix  in out
    """,
    "low-rank adapters of PEFT": """
  base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight      4096 4096  matrix  out in
  base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight  8 4096     matrix  out in
  base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight  4096 8     matrix  out in
  base_model.model.model.layers.0.input_layernorm.weight                  4096       norm
    """,
    "attention of Transformer Engine": """
        layernorm_qkv/scale    1024          norm
        layernorm_qkv/kernel   1024 3 16 64  matrix  in batch out out
        layernorm_qkv/ln_bias  1024          norm
        attention/out/kernel   16 64 1024    matrix  in in out
    """,
    "CLIP": """
        visual.class_embedding                               768        embedding
        visual.positional_embedding                          50 768     position
        visual.ln_pre.weight                                 768        norm
        visual.transformer.resblocks.0.attn.in_proj_weight   2304 768   matrix     out in
        visual.transformer.resblocks.0.attn.in_proj_bias     2304       norm
        visual.transformer.resblocks.0.attn.out_proj.weight  768 768    matrix     out in
        visual.transformer.resblocks.0.mlp.c_fc.weight       3072 768   matrix     out in
        visual.transformer.resblocks.0.mlp.c_fc.bias         3072       norm
        token_embedding.weight                               49408 512  embedding
        positional_embedding                                 77 512     position
        logit_scale                                          -          norm
    """,
}
