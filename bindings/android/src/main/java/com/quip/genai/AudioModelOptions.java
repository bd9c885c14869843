package com.quip.genai;

/** What MediaPipe needs to know of sound. Sound is not supported. */
public final class AudioModelOptions {
    private final int maxAudioSequenceLength;

    private AudioModelOptions(int maxAudioSequenceLength) {
        this.maxAudioSequenceLength = maxAudioSequenceLength;
    }

    public static Builder builder() {
        return new Builder();
    }

    public int maxAudioSequenceLength() {
        return maxAudioSequenceLength;
    }

    public static final class Builder {
        private int maxAudioSequenceLength;

        private Builder() {}

        public Builder setMaxAudioSequenceLength(int length) {
            maxAudioSequenceLength = length;
            return this;
        }

        public AudioModelOptions build() {
            return new AudioModelOptions(maxAudioSequenceLength);
        }
    }
}
