"""The operators in Triton for CUDA GPUs: float32, bfloat16 and float16, summed in float32."""
