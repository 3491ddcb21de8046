"""The LRA meta step: the gradient of L_acq(θ) + w L_ret(θ') with θ' = θ − α · rule(∇L_acq(θ))."""
