package com.quip.genai;

import android.content.Context;
import com.google.common.util.concurrent.ListenableFuture;
import com.quip.Adapter;
import com.quip.Model;
import com.quip.QuipException;
import java.io.File;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * MediaPipe's LLM Inference: a model, and how its sessions may use it. docs/moving-from-mediapipe.md
 * lists the differences. {@link com.quip.Model} is shorter.
 *
 * <p>Calls wait until the work is done, except those named Async. As in MediaPipe, call them from a
 * thread that may block.
 */
public final class LlmInference implements AutoCloseable {
    private final LlmInferenceOptions options;
    private final Model model;
    private final Map<String, Adapter> adapters = new HashMap<>();
    private LlmInferenceSession implicit; // of the last generateResponseAsync

    private LlmInference(LlmInferenceOptions options) {
        this.options = options;
        model = Model.openBlocking(new File(options.modelPath()));
    }

    /** Opens the model. The context is not used: there is no cache. */
    public static LlmInference createFromOptions(Context context, LlmInferenceOptions options) {
        return new LlmInference(options);
    }

    /** Answers one prompt, in a session of its own. */
    public String generateResponse(String inputText) {
        try (LlmInferenceSession session = newSession()) {
            session.addQueryChunk(inputText);
            return session.generateResponse();
        }
    }

    public ListenableFuture<String> generateResponseAsync(String inputText) {
        return generateResponseAsync(inputText, null);
    }

    /** Answers one prompt, in a session of its own, on another thread, which calls the listener. */
    public synchronized ListenableFuture<String> generateResponseAsync(
            String inputText, ProgressListener<String> listener) {
        if (implicit != null) {
            implicit.checkIdle();
            implicit.close();
        }
        implicit = newSession();
        return implicit.start(inputText, listener);
    }

    private LlmInferenceSession newSession() {
        return LlmInferenceSession.createFromOptions(
                this, LlmInferenceSession.defaultOptions(this));
    }

    /** The number of tokens of a text, without template and beginning-of-sequence token. */
    public int sizeInTokens(String text) {
        return model.tokenizeBlocking(text, !model.getInfo().getHasTemplate()).length;
    }

    /** MediaPipe's tokenizer is not there; {@link com.quip.Model#tokenize} has the token ids. */
    public long getSentencePieceProcessorHandle() {
        throw new QuipException(
                QuipException.Status.UNSUPPORTED,
                "there is no SentencePieceProcessor; use com.quip.Model.tokenize");
    }

    /** Closes the model. Sessions that are still open keep what they need of it. */
    @Override
    public synchronized void close() {
        if (implicit != null) {
            implicit.close();
        }
        for (Adapter adapter : adapters.values()) {
            adapter.close();
        }
        adapters.clear();
        model.close();
    }

    LlmInferenceOptions options() {
        return options;
    }

    Model model() {
        return model;
    }

    /** One adapter for all sessions that use this file. */
    synchronized Adapter adapter(String path) {
        Adapter adapter = adapters.get(path);
        if (adapter == null) {
            adapter = model.openAdapterBlocking(new File(path));
            adapters.put(path, adapter);
        }
        return adapter;
    }

    /** The processor that runs the model. GPU is accepted, and the CPU is used. */
    public enum Backend {
        DEFAULT,
        CPU,
        GPU
    }

    /** Which model, and limits of its sessions. */
    public static final class LlmInferenceOptions {
        private final Builder values;

        private LlmInferenceOptions(Builder values) {
            this.values = values;
        }

        public static Builder builder() {
            return new Builder();
        }

        public String modelPath() {
            return values.modelPath;
        }

        public int maxTokens() {
            return values.maxTokens;
        }

        public int maxTopK() {
            return values.maxTopK;
        }

        public int maxNumImages() {
            return values.maxNumImages;
        }

        public List<Integer> supportedLoraRanks() {
            return values.supportedLoraRanks;
        }

        /** Always empty: such options cannot be built. */
        public Optional<VisionModelOptions> visionModelOptions() {
            return Optional.empty();
        }

        /** Always empty: such options cannot be built. */
        public Optional<AudioModelOptions> audioModelOptions() {
            return Optional.empty();
        }

        public Optional<Backend> preferredBackend() {
            return Optional.ofNullable(values.preferredBackend);
        }

        public Builder toBuilder() {
            return values.copy();
        }

        public static final class Builder {
            private String modelPath;
            private int maxTokens = 512;
            private int maxTopK = 40;
            private int maxNumImages;
            private List<Integer> supportedLoraRanks = Collections.emptyList();
            private Backend preferredBackend;
            private VisionModelOptions visionModelOptions;
            private AudioModelOptions audioModelOptions;

            private Builder() {}

            private Builder copy() {
                Builder copy = new Builder();
                copy.modelPath = modelPath;
                copy.maxTokens = maxTokens;
                copy.maxTopK = maxTopK;
                copy.maxNumImages = maxNumImages;
                copy.supportedLoraRanks = supportedLoraRanks;
                copy.preferredBackend = preferredBackend;
                return copy;
            }

            public Builder setModelPath(String path) {
                modelPath = path;
                return this;
            }

            /** Tokens of prompt and answer together. */
            public Builder setMaxTokens(int tokens) {
                maxTokens = tokens;
                return this;
            }

            /** The largest topK that a session may have. */
            public Builder setMaxTopK(int topK) {
                maxTopK = topK;
                return this;
            }

            public Builder setMaxNumImages(int images) {
                maxNumImages = images;
                return this;
            }

            /** Ignored: every rank is supported. */
            public Builder setSupportedLoraRanks(List<Integer> ranks) {
                supportedLoraRanks = Collections.unmodifiableList(ranks);
                return this;
            }

            public Builder setPreferredBackend(Backend backend) {
                preferredBackend = backend;
                return this;
            }

            /** Images are not supported: {@link #build} fails. */
            public Builder setVisionModelOptions(VisionModelOptions options) {
                visionModelOptions = options;
                return this;
            }

            /** Sound is not supported: {@link #build} fails. */
            public Builder setAudioModelOptions(AudioModelOptions options) {
                audioModelOptions = options;
                return this;
            }

            public LlmInferenceOptions build() {
                if (modelPath == null) {
                    throw new IllegalStateException("modelPath is not set");
                }
                if (maxTokens < 1) {
                    throw new IllegalArgumentException(
                            "maxTokens is " + maxTokens + "; must be at least 1");
                }
                if (maxNumImages != 0) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "images are not supported; maxNumImages must be 0");
                }
                if (visionModelOptions != null) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "images are not supported; do not set visionModelOptions");
                }
                if (audioModelOptions != null) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "sound is not supported; do not set audioModelOptions");
                }
                return new LlmInferenceOptions(copy());
            }
        }
    }
}
