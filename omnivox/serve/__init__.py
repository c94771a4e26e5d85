"""Many conversations on one model, over the network: the OpenAI Realtime protocol and what surrounds it."""
