package com.quip.genai;

/** Parts of MediaPipe's graph. Images and sound are refused. */
public final class GraphOptions {
    private final boolean includeTokenCostCalculator;
    private final boolean enableVisionModality;
    private final boolean enableAudioModality;

    private GraphOptions(Builder builder) {
        includeTokenCostCalculator = builder.includeTokenCostCalculator;
        enableVisionModality = builder.enableVisionModality;
        enableAudioModality = builder.enableAudioModality;
    }

    public static Builder builder() {
        return new Builder();
    }

    public boolean includeTokenCostCalculator() {
        return includeTokenCostCalculator;
    }

    public boolean enableVisionModality() {
        return enableVisionModality;
    }

    public boolean enableAudioModality() {
        return enableAudioModality;
    }

    public static final class Builder {
        private boolean includeTokenCostCalculator = true;
        private boolean enableVisionModality;
        private boolean enableAudioModality;

        private Builder() {}

        /** Ignored: tokens can always be counted. */
        public Builder setIncludeTokenCostCalculator(boolean include) {
            includeTokenCostCalculator = include;
            return this;
        }

        public Builder setEnableVisionModality(boolean enable) {
            enableVisionModality = enable;
            return this;
        }

        public Builder setEnableAudioModality(boolean enable) {
            enableAudioModality = enable;
            return this;
        }

        public GraphOptions build() {
            return new GraphOptions(this);
        }
    }
}
