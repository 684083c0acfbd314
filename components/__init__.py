"""What the system computes: encoders, denoiser, decoder, media. No Ray, no HTTP, no job ids."""
