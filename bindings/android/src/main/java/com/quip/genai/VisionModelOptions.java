package com.quip.genai;

import java.util.Optional;

/** Where MediaPipe finds the models for images. Images are not supported. */
public final class VisionModelOptions {
    private final Builder values;

    private VisionModelOptions(Builder values) {
        this.values = values;
    }

    public static Builder builder() {
        return new Builder();
    }

    public Optional<String> getEncoderPath() {
        return Optional.ofNullable(values.encoderPath);
    }

    public Optional<String> getAdapterPath() {
        return Optional.ofNullable(values.adapterPath);
    }

    public static final class Builder {
        private String encoderPath;
        private String adapterPath;

        private Builder() {}

        public Builder setEncoderPath(String path) {
            encoderPath = path;
            return this;
        }

        public Builder setAdapterPath(String path) {
            adapterPath = path;
            return this;
        }

        public VisionModelOptions build() {
            return new VisionModelOptions(
                    new Builder().setEncoderPath(encoderPath).setAdapterPath(adapterPath));
        }
    }
}
