# syntax=docker/dockerfile:1
# The image for people who have Docker. It holds the program, certificates, and nothing else: no shell, no libc.
#   docker build --tag localhost/gemini-operator:0.1.0 .
# Pin both bases by digest in a release build: --build-arg RUST_IMAGE=rust:1.95-bookworm@sha256:…

ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# The public certificates of the distribution, not whatever a base image may have added to its assembled bundle.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /root-fs/etc/ssl/certs /root-fs/usr/bin \
 && for certificate in /usr/share/ca-certificates/mozilla/*.crt; do cat "$certificate"; echo; done \
      | sed '/^$/d' > /root-fs/etc/ssl/certs/ca-certificates.crt \
 && test "$(grep -c 'BEGIN CERTIFICATE' /root-fs/etc/ssl/certs/ca-certificates.crt)" -ge 50 \
 && printf 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > /root-fs/etc/passwd \
 && printf 'nonroot:x:65532:\n' > /root-fs/etc/group
# Without rust-toolchain.toml (see Dockerfile.dockerignore): the base image has the compiler, and no other components are fetched.
COPY . .
# crt-static on glibc: one file that needs no library. It applies to the last step only, so procedural macros still build.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo rustc --locked --release --bin gemini-operator -- -C target-feature=+crt-static \
 && install -m 0755 target/release/gemini-operator /root-fs/usr/bin/gemini-operator

FROM scratch
LABEL org.opencontainers.image.title="gemini-operator" \
      org.opencontainers.image.description="Kubernetes operator that runs Gemini Batch API jobs without polling and without ever paying twice" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /root-fs/ /
# A number, because runAsNonRoot cannot judge a name.
USER 65532:65532
# deliveries, admin
EXPOSE 8443 8080
ENTRYPOINT ["/usr/bin/gemini-operator"]
