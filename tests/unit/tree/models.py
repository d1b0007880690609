"""Trees of real models, language: path, shape, role and axes of every kind of leaf.

Names and shapes are facts of the models; one layer stands for all. A dotted path is one key, as in
the state dict of a torch model; a path with slashes is nested.
"""

LANGUAGE = {
    "GPT-2, Hugging Face": """
        wte.weight              50257 768  embedding
        wpe.weight              1024 768   position
        h.0.ln_1.weight         768        norm
        h.0.ln_1.bias           768        norm
        h.0.attn.c_attn.weight  768 2304   matrix     in out
        h.0.attn.c_attn.bias    2304       norm
        h.0.attn.c_proj.weight  768 768    matrix     in out
        h.0.attn.c_proj.bias    768        norm
        h.0.mlp.c_fc.weight     768 3072   matrix     in out
        h.0.mlp.c_fc.bias       3072       norm
        h.0.mlp.c_proj.weight   3072 768   matrix     in out
        h.0.mlp.c_proj.bias     768        norm
        ln_f.weight             768        norm
    """,
    "GPT-2, Hugging Face in Flax": """
        transformer/wte/embedding           50257 768  embedding
        transformer/wpe/embedding           1024 768   position
        transformer/h/0/ln_1/scale          768        norm
        transformer/h/0/attn/c_attn/kernel  2304 768   matrix     out in
        transformer/h/0/attn/c_attn/bias    2304       norm
        transformer/h/0/attn/c_proj/kernel  768 768    matrix     out in
        transformer/h/0/attn/c_proj/bias    768        norm
        transformer/h/0/mlp/c_fc/kernel     3072 768   matrix     out in
        transformer/h/0/mlp/c_fc/bias       3072       norm
        transformer/h/0/mlp/c_proj/kernel   768 3072   matrix     out in
        transformer/h/0/mlp/c_proj/bias     768        norm
        transformer/ln_f/scale              768        norm
    """,
    "Llama 3, Hugging Face": """
        model.embed_tokens.weight               128256 4096  embedding
        model.layers.0.self_attn.q_proj.weight  4096 4096    matrix     out in
        model.layers.0.self_attn.k_proj.weight  1024 4096    matrix     out in
        model.layers.0.self_attn.v_proj.weight  1024 4096    matrix     out in
        model.layers.0.self_attn.o_proj.weight  4096 4096    matrix     out in
        model.layers.0.mlp.gate_proj.weight     14336 4096   matrix     out in
        model.layers.0.mlp.up_proj.weight       14336 4096   matrix     out in
        model.layers.0.mlp.down_proj.weight     4096 14336   matrix     out in
        model.layers.0.input_layernorm.weight   4096         norm
        model.norm.weight                       4096         norm
        lm_head.weight                          128256 4096  head       out in
    """,
    "Llama 2, Meta's names": """
        tok_embeddings/weight            32000 4096  embedding
        layers/0/attention/wq/weight     4096 4096   matrix     out in
        layers/0/attention/wo/weight     4096 4096   matrix     out in
        layers/0/feed_forward/w1/weight  11008 4096  matrix     out in
        layers/0/feed_forward/w2/weight  4096 11008  matrix     out in
        layers/0/attention_norm/weight   4096        norm
        norm/weight                      4096        norm
        output/weight                    32000 4096  head       out in
    """,
    "Llama in JAX, scanned": """
        model/embed_tokens/embedding          32000 4096     embedding
        model/layers/self_attn/q_proj/kernel  32 4096 4096   matrix     batch in out
        model/layers/self_attn/o_proj/kernel  32 4096 4096   matrix     batch in out
        model/layers/mlp/gate_proj/kernel     32 4096 11008  matrix     batch in out
        model/layers/mlp/down_proj/kernel     32 11008 4096  matrix     batch in out
        model/layers/input_layernorm/scale    32 4096        norm       batch out
        model/norm/scale                      4096           norm
        lm_head/kernel                        4096 32000     head       in out
    """,
    "Llama in MaxText": """
params/token_embedder/embedding  32000 4096  embedding
params/decoder/layers/self_attention/query/kernel  4096 32 64 128  matrix  in batch out out
params/decoder/layers/self_attention/key/kernel  4096 32 8 128  matrix  in batch out out
params/decoder/layers/self_attention/out/kernel  64 32 128 4096  matrix  in batch in out
params/decoder/layers/mlp/wi_0/kernel  4096 32 11008  matrix  in batch out
params/decoder/layers/mlp/wo/kernel  11008 32 4096  matrix  in batch out
params/decoder/layers/pre_self_attention_layer_norm/scale  4096 32  norm  out batch
params/decoder/decoder_norm/scale  4096  norm
params/decoder/logits_dense/kernel  4096 32000  head  in out
    """,
    "Mixtral in MaxText": """
params/token_embedder/embedding  32000 4096  embedding
params/decoder/layers/MoeBlock_0/gate/kernel  4096 32 8  router  in batch out
params/decoder/layers/MoeBlock_0/wi_0  8 32 4096 14336  matrix  batch batch in out
params/decoder/layers/MoeBlock_0/wi_1  8 32 4096 14336  matrix  batch batch in out
params/decoder/layers/MoeBlock_0/wo  8 32 14336 4096  matrix  batch batch in out
params/decoder/layers/self_attention/query/kernel  4096 32 32 128  matrix  in batch out out
params/decoder/layers/self_attention/out/kernel  32 32 128 4096  matrix  in batch in out
params/decoder/layers/pre_self_attention_layer_norm/scale  4096 32  norm  out batch
params/decoder/logits_dense/kernel  4096 32000  head  in out
    """,
    "Mixtral, Hugging Face": """
        model.embed_tokens.weight                            32000 4096  embedding
        model.layers.0.self_attn.k_proj.weight               1024 4096   matrix     out in
        model.layers.0.block_sparse_moe.gate.weight          8 4096      router     out in
        model.layers.0.block_sparse_moe.experts.0.w1.weight  14336 4096  matrix     out in
        model.layers.0.block_sparse_moe.experts.0.w2.weight  4096 14336  matrix     out in
        model.layers.0.post_attention_layernorm.weight       4096        norm
        lm_head.weight                                       32000 4096  head       out in
    """,
    "Qwen3-MoE, Hugging Face, experts in one array": """
        model.embed_tokens.weight                151936 2048    embedding
        model.layers.0.self_attn.q_norm.weight   128            norm
        model.layers.0.self_attn.q_proj.weight   4096 2048      matrix     out in
        model.layers.0.mlp.gate.weight           128 2048       router     out in
        model.layers.0.mlp.experts.gate_up_proj  128 1536 2048  matrix     batch out in
        model.layers.0.mlp.experts.down_proj     128 2048 768   matrix     batch out in
        lm_head.weight                           151936 2048    head       out in
    """,
    "gpt-oss, Hugging Face": """
        model.embed_tokens.weight                     201088 2880   embedding
        model.layers.0.self_attn.sinks                64            vector
        model.layers.0.self_attn.q_proj.weight        4096 2880     matrix     out in
        model.layers.0.self_attn.q_proj.bias          4096          norm
        model.layers.0.mlp.router.weight              32 2880       router     out in
        model.layers.0.mlp.router.bias                32            router
        model.layers.0.mlp.experts.gate_up_proj       32 2880 5760  matrix     batch in out
        model.layers.0.mlp.experts.gate_up_proj_bias  32 5760       norm       batch out
        model.layers.0.mlp.experts.down_proj          32 2880 2880  matrix     batch in out
        model.layers.0.mlp.experts.down_proj_bias     32 2880       norm       batch out
        lm_head.weight                                201088 2880   head       out in
    """,
    "DeepSeek-V3, Hugging Face": """
        model.embed_tokens.weight                           129280 7168  embedding
        model.layers.3.self_attn.q_a_proj.weight            1536 7168    matrix     out in
        model.layers.3.self_attn.q_a_layernorm.weight       1536         norm
        model.layers.3.self_attn.kv_a_proj_with_mqa.weight  576 7168     matrix     out in
        model.layers.3.mlp.gate.weight                      256 7168     router     out in
        model.layers.3.mlp.gate.e_score_correction_bias     256          norm
        model.layers.3.mlp.experts.0.gate_proj.weight       2048 7168    matrix     out in
        model.layers.3.mlp.shared_experts.down_proj.weight  7168 2048    matrix     out in
        lm_head.weight                                      129280 7168  head       out in
    """,
    "T5, Hugging Face": """
  shared.weight                                                         32128 512  embedding
  encoder.block.0.layer.0.SelfAttention.q.weight                        384 512    matrix     out in
  encoder.block.0.layer.0.SelfAttention.o.weight                        512 384    matrix     out in
  encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight  32 6       position
  encoder.block.0.layer.0.layer_norm.weight                             512        norm
  encoder.block.0.layer.1.DenseReluDense.wi_0.weight                    1024 512   matrix     out in
  encoder.block.0.layer.1.DenseReluDense.wo.weight                      512 1024   matrix     out in
  encoder.final_layer_norm.weight                                       512        norm
  lm_head.weight                                                        32128 512  head       out in
    """,
    "T5X": """
        token_embedder/embedding                         32128 512  embedding
        encoder/relpos_bias/rel_embedding                6 32       position
        encoder/layers_0/attention/query/kernel          512 384    matrix     in out
        encoder/layers_0/attention/out/kernel            384 512    matrix     in out
        encoder/layers_0/mlp/wi_0/kernel                 512 1024   matrix     in out
        encoder/layers_0/mlp/wo/kernel                   1024 512   matrix     in out
        encoder/layers_0/pre_attention_layer_norm/scale  512        norm
        decoder/logits_dense/kernel                      512 32128  head       in out
    """,
    "Switch Transformer, flaxformer": """
        token_embedder/embedding                             32128 768   embedding
        encoder/layers_1/mlp/router/router_weights/w/kernel  768 8       router     in out
        encoder/layers_1/mlp/expert/wi/kernel                8 768 2048  matrix     batch in out
        encoder/layers_1/mlp/expert/wo/kernel                8 2048 768  matrix     batch in out
        decoder/logits_dense/kernel                          768 32128   head       in out
    """,
    "BERT, Hugging Face in Flax": """
        bert/embeddings/word_embeddings/embedding           30522 768  embedding
        bert/embeddings/position_embeddings/embedding       512 768    position
        bert/embeddings/token_type_embeddings/embedding     2 768      embedding
        bert/embeddings/LayerNorm/scale                     768        norm
        bert/encoder/layer/0/attention/self/query/kernel    768 768    matrix     in out
        bert/encoder/layer/0/attention/self/query/bias      768        norm
        bert/encoder/layer/0/attention/output/dense/kernel  768 768    matrix     in out
        bert/encoder/layer/0/intermediate/dense/kernel      768 3072   matrix     in out
        bert/encoder/layer/0/intermediate/dense/bias        3072       norm
        bert/encoder/layer/0/output/dense/kernel            3072 768   matrix     in out
        bert/encoder/layer/0/output/dense/bias              768        norm
        cls/predictions/decoder/kernel                      768 30522  head       in out
    """,
    "GPT-NeoX, Hugging Face": """
        gpt_neox.embed_in.weight                            50432 6144  embedding
        gpt_neox.layers.0.attention.query_key_value.weight  18432 6144  matrix     out in
        gpt_neox.layers.0.attention.query_key_value.bias    18432       norm
        gpt_neox.layers.0.mlp.dense_h_to_4h.weight          24576 6144  matrix     out in
        gpt_neox.layers.0.mlp.dense_h_to_4h.bias            24576       norm
        gpt_neox.final_layer_norm.weight                    6144        norm
        embed_out.weight                                    50432 6144  head       out in
    """,
    "Gemma in Flax": """
        transformer/embedder/input_embedding          256128 2048   embedding
        transformer/layer_0/attn/q_einsum/w           8 2048 256    matrix     out in out
        transformer/layer_0/attn/kv_einsum/w          2 1 2048 256  matrix     batch out in out
        transformer/layer_0/attn/attn_vec_einsum/w    8 256 2048    matrix     in in out
        transformer/layer_0/mlp/gating_einsum         2 2048 16384  unknown
        transformer/layer_0/mlp/linear                16384 2048    matrix     in out
        transformer/layer_0/pre_attention_norm/scale  2048          norm
        transformer/final_norm/scale                  2048          norm
    """,
    "Mamba, Hugging Face": """
        backbone.embeddings.weight               50280 768  embedding
        backbone.layers.0.norm.weight            768        norm
        backbone.layers.0.mixer.A_log            1536 16    dynamics
        backbone.layers.0.mixer.D                1536       vector
        backbone.layers.0.mixer.conv1d.weight    1536 1 4   convolution  out in batch
        backbone.layers.0.mixer.conv1d.bias      1536       norm
        backbone.layers.0.mixer.in_proj.weight   3072 768   matrix       out in
        backbone.layers.0.mixer.x_proj.weight    80 1536    matrix       out in
        backbone.layers.0.mixer.dt_proj.weight   1536 48    matrix       out in
        backbone.layers.0.mixer.dt_proj.bias     1536       norm
        backbone.layers.0.mixer.out_proj.weight  768 1536   matrix       out in
        lm_head.weight                           50280 768  head         out in
    """,
    "Mamba in JAX, scanned": """
        embedding/embedding           50280 768    embedding
        layers/norm/scale             24 768       norm         batch out
        layers/mixer/A_log            24 1536 16   dynamics     batch in out
        layers/mixer/D                24 1536      vector       batch out
        layers/mixer/dt_bias          24 1536      dynamics     batch out
        layers/mixer/conv1d/kernel    24 4 1 1536  convolution  batch batch in out
        layers/mixer/in_proj/kernel   24 768 3072  matrix       batch in out
        layers/mixer/out_proj/kernel  24 1536 768  matrix       batch in out
    """,
    "RWKV-4, Hugging Face": """
        rwkv.embeddings.weight                   50277 768  embedding
        rwkv.blocks.0.attention.time_decay       768        dynamics
        rwkv.blocks.0.attention.time_mix_key     1 1 768    vector
        rwkv.blocks.0.attention.key.weight       768 768    matrix     out in
        rwkv.blocks.0.feed_forward.key.weight    3072 768   matrix     out in
        rwkv.blocks.0.feed_forward.value.weight  768 3072   matrix     out in
        rwkv.blocks.0.ln1.weight                 768        norm
        head.weight                              50277 768  head       out in
    """,
    "transformer in plain JAX, scanned by hand": """
        wte                  50304 512   embedding
        positional_encoding  1024 512    position
        blocks/ln_scale      6 512       norm       batch out
        blocks/w1            6 512 2048  matrix     batch in out
        blocks/b1            6 2048      norm       batch out
        blocks/w2            6 2048 512  matrix     batch in out
        blocks/b2            6 512       norm       batch out
        blocks/qkv           6 512 1536  matrix     batch in out
        blocks/qkv_bias      6 1536      norm       batch out
        unembed              512 50304   head       in out
    """,
    "mixture of experts in plain JAX": """
        embed                32000 1024   embedding
        layers/0/router      1024 8       router     in out
        layers/0/experts/wi  8 1024 4096  matrix     batch in out
        layers/0/experts/bi  8 4096       vector     batch out
        layers/0/experts/wo  8 4096 1024  matrix     batch in out
        layers/0/norm        1024         norm
    """,
}
