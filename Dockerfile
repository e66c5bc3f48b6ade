# Builds `emu` from a clean clone and serves emu-mini, or the pack that is named:
#
#     docker build -t emu .
#     docker run --rm -p 8080:8080 -e EMU_API_KEY=... -v "$PWD/pack:/pack:ro" emu --model /pack
#
# docs/serving.md describes the endpoints.

FROM rust:1.95-bookworm AS build
WORKDIR /emu
COPY . .
RUN cargo build --release --locked --package emu-cli --bin emu

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libvulkan1 mesa-vulkan-drivers \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home emu
COPY --from=build /emu/target/release/emu /usr/local/bin/emu
USER emu
EXPOSE 8080
STOPSIGNAL SIGTERM
# Other machines reach a container, so it starts only with a key: EMU_API_KEY.
ENTRYPOINT ["emu", "serve", "--host", "0.0.0.0", "--port", "8080"]
