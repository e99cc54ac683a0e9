"""Networks of latent video diffusion on the leaves of `networks/diffusion` (spec `video.md` section 4)."""
