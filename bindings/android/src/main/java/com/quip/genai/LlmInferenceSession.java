package com.quip.genai;

import com.google.common.util.concurrent.ListenableFuture;
import com.quip.QuipException;
import com.quip.Result;
import com.quip.Role;
import com.quip.Session;
import com.quip.SessionOptions;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;

/** A conversation: chunks of the user's turn, then an answer, then more chunks. */
public final class LlmInferenceSession implements AutoCloseable {
    private static final String BUSY =
            "Previous invocation still processing. Wait for done=true.";

    private final LlmInference llm;
    private final Session session;
    private final AtomicBoolean isBusy = new AtomicBoolean();
    private volatile LlmInferenceSessionOptions options;
    private Role lastRole = Role.NONE; // used if there are prompt templates

    private LlmInferenceSession(
            LlmInference llm, Session session, LlmInferenceSessionOptions options) {
        this.llm = llm;
        this.session = session;
        this.options = options;
    }

    public static LlmInferenceSession createFromOptions(
            LlmInference llmInference, LlmInferenceSessionOptions options) {
        Session session =
                llmInference.model().openSessionBlocking(sessionOptions(llmInference, options));
        try {
            if (options.loraPath().isPresent()) {
                session.setAdapterBlocking(llmInference.adapter(options.loraPath().get()), 1f);
            }
        } catch (RuntimeException e) {
            session.close();
            throw e;
        }
        return new LlmInferenceSession(llmInference, session, options);
    }

    static LlmInferenceSessionOptions defaultOptions(LlmInference llm) {
        LlmInferenceSessionOptions.Builder builder = LlmInferenceSessionOptions.builder();
        return builder.setTopK(Math.min(builder.topK, llm.options().maxTopK())).build();
    }

    private static SessionOptions sessionOptions(
            LlmInference llm, LlmInferenceSessionOptions options) {
        if (options.topK() < 1 || options.topK() > llm.options().maxTopK()) {
            throw new IllegalArgumentException(
                    "topK is " + options.topK() + "; must be 1 to maxTopK, which is "
                            + llm.options().maxTopK());
        }
        SessionOptions to = new SessionOptions();
        to.nContext = llm.options().maxTokens();
        // in MediaPipe a topP of 0 leaves only the most likely token; here it means no limit
        to.topK = options.topP() > 0 ? options.topK() : 1;
        to.topP = options.topP();
        to.temperature = options.temperature();
        to.greedy = options.temperature() == 0;
        // MediaPipe has nothing more, so the defaults of Quip and of the model file do not count
        to.minP = -1;
        to.repeatPenalty = 1;
        to.noRepeatNgram = -1;
        to.seed = (long) options.randomSeed();
        to.noTemplate = options.promptTemplates().isPresent();
        return to;
    }

    // ---- the conversation ----

    /** Appends to the user's turn, and runs the model over it. */
    public void addQueryChunk(String inputText) {
        enter();
        try {
            append(inputText);
        } finally {
            isBusy.set(false);
        }
    }

    /** Images are not supported. */
    public void addImage(Object image) {
        throw new QuipException(
                QuipException.Status.UNSUPPORTED, "images are not supported");
    }

    /** Sound is not supported. */
    public void addAudio(byte[] audio) {
        throw new QuipException(QuipException.Status.UNSUPPORTED, "sound is not supported");
    }

    /** The whole answer. */
    public String generateResponse() {
        enter();
        try {
            return answer(null);
        } finally {
            isBusy.set(false);
        }
    }

    public ListenableFuture<String> generateResponseAsync() {
        return start(null, null);
    }

    /**
     * Generates the answer on another thread, which calls the listener with each new text and at the
     * end with ("", true). By then the session can be used again. An exception of the listener ends
     * the answer and becomes that of the future.
     */
    public ListenableFuture<String> generateResponseAsync(ProgressListener<String> listener) {
        return start(null, listener);
    }

    /** Appends the text, if there is one, and answers, on another thread. */
    ListenableFuture<String> start(String inputText, ProgressListener<String> listener) {
        enter();
        return Answer.start(
                () -> {
                    String text;
                    try {
                        if (inputText != null) {
                            append(inputText);
                        }
                        text = answer(listener);
                    } finally {
                        isBusy.set(false);
                    }
                    if (listener != null) {
                        listener.run("", true);
                    }
                    return text;
                });
    }

    /** Ends the answer. The future has the text so far. */
    public void cancelGenerateResponseAsync() {
        session.cancel();
    }

    private String answer(ProgressListener<String> listener) {
        if (options.promptTemplates().isPresent()) {
            switchRole(Role.MODEL);
        }
        StringBuilder text = new StringBuilder();
        for (String piece = session.nextBlocking();
                piece != null;
                piece = session.nextBlocking()) {
            String shown = text.length() == 0 ? withoutLeadingBlanks(piece) : piece;
            text.append(shown);
            if (listener != null && !shown.isEmpty()) {
                listener.run(shown, false);
            }
        }
        return text.toString();
    }

    private void append(String inputText) {
        if (options.promptTemplates().isPresent()) {
            switchRole(Role.USER);
            session.appendBlocking(Role.USER, inputText);
        } else if (llm.model().getInfo().getHasTemplate()) {
            session.appendBlocking(Role.USER, inputText);
        } else { // the caller writes whole prompts, including control tokens
            session.appendBlocking(Role.NONE, inputText);
        }
    }

    /** Appends the suffix of the last role and the prefix of this one. */
    private void switchRole(Role role) {
        if (role == lastRole) {
            return;
        }
        PromptTemplates templates = options.promptTemplates().get();
        String suffix =
                lastRole == Role.USER
                        ? templates.userSuffix()
                        : lastRole == Role.MODEL ? templates.modelSuffix() : "";
        String prefix = role == Role.USER ? templates.userPrefix() : templates.modelPrefix();
        if (!(suffix + prefix).isEmpty()) {
            session.appendBlocking(Role.NONE, suffix + prefix);
        }
        lastRole = role;
    }

    /** MediaPipe removes white space before an answer. */
    private static String withoutLeadingBlanks(String text) {
        int i = 0;
        while (i < text.length() && Character.isWhitespace(text.charAt(i))) {
            i++;
        }
        return text.substring(i);
    }

    private void enter() {
        if (!isBusy.compareAndSet(false, true)) {
            throw new IllegalStateException(BUSY);
        }
    }

    void checkIdle() {
        if (isBusy.get()) {
            throw new IllegalStateException(BUSY);
        }
    }

    // ---- other calls ----

    public int sizeInTokens(String text) {
        return llm.sizeInTokens(text);
    }

    /** Why the last answer ended, and what it took. Not in MediaPipe. */
    public Result result() {
        return session.resultBlocking();
    }

    /** Opens a second session that continues from the same point. */
    public LlmInferenceSession cloneSession() {
        checkIdle();
        LlmInferenceSession copy = new LlmInferenceSession(llm, session.copyBlocking(), options);
        copy.lastRole = lastRole;
        return copy;
    }

    public LlmInferenceSessionOptions getSessionOptions() {
        return options;
    }

    /** Changes options between turns. The LoRA file and the prompt templates cannot change. */
    public void updateSessionOptions(
            Function<LlmInferenceSessionOptions.Builder, LlmInferenceSessionOptions.Builder>
                    change) {
        LlmInferenceSessionOptions changed = change.apply(options.toBuilder()).build();
        if (!changed.loraPath().equals(options.loraPath())
                || changed.promptTemplates().isPresent() != options.promptTemplates().isPresent()) {
            throw new IllegalArgumentException(
                    "loraPath and promptTemplates cannot change; open another session");
        }
        enter();
        try {
            session.setOptionsBlocking(sessionOptions(llm, changed));
            options = changed;
        } finally {
            isBusy.set(false);
        }
    }

    /** Ends what is running. */
    @Override
    public void close() {
        session.close();
    }

    /** How a session answers. */
    public static final class LlmInferenceSessionOptions {
        private final Builder values;

        private LlmInferenceSessionOptions(Builder values) {
            this.values = values;
        }

        public static Builder builder() {
            return new Builder();
        }

        public Builder toBuilder() {
            return values.copy();
        }

        public int topK() {
            return values.topK;
        }

        public float topP() {
            return values.topP;
        }

        public float temperature() {
            return values.temperature;
        }

        public int randomSeed() {
            return values.randomSeed;
        }

        public Optional<String> loraPath() {
            return Optional.ofNullable(values.loraPath);
        }

        public Optional<GraphOptions> graphOptions() {
            return Optional.ofNullable(values.graphOptions);
        }

        public Optional<PromptTemplates> promptTemplates() {
            return Optional.ofNullable(values.promptTemplates);
        }

        /** Always 0: there are no constraints. */
        public long constraintHandle() {
            return 0;
        }

        public static final class Builder {
            private int topK = 40;
            private float topP = 1.0f;
            private float temperature = 0.8f;
            private int randomSeed;
            private String loraPath;
            private GraphOptions graphOptions;
            private PromptTemplates promptTemplates;
            private long constraintHandle;

            private Builder() {}

            private Builder copy() {
                Builder copy = new Builder();
                copy.topK = topK;
                copy.topP = topP;
                copy.temperature = temperature;
                copy.randomSeed = randomSeed;
                copy.loraPath = loraPath;
                copy.graphOptions = graphOptions;
                copy.promptTemplates = promptTemplates;
                return copy;
            }

            /** Sample from the k most likely tokens; 1: greedy. */
            public Builder setTopK(int k) {
                topK = k;
                return this;
            }

            public Builder setTopP(float p) {
                topP = p;
                return this;
            }

            /** 0: greedy. */
            public Builder setTemperature(float value) {
                temperature = value;
                return this;
            }

            public Builder setRandomSeed(int seed) {
                randomSeed = seed;
                return this;
            }

            /** A MediaPipe LoRA file or a PEFT folder. */
            public Builder setLoraPath(String path) {
                loraPath = path == null || path.isEmpty() ? null : path;
                return this;
            }

            public Builder setGraphOptions(GraphOptions graph) {
                graphOptions = graph;
                return this;
            }

            public Builder setPromptTemplates(PromptTemplates templates) {
                promptTemplates = templates;
                return this;
            }

            /** Constraints are not supported: {@link #build} fails unless the handle is 0. */
            public Builder setConstraintHandle(long handle) {
                constraintHandle = handle;
                return this;
            }

            public LlmInferenceSessionOptions build() {
                if (constraintHandle != 0) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "constraints are not supported; constraintHandle must be 0");
                }
                if (graphOptions != null && graphOptions.enableVisionModality()) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "images are not supported; enableVisionModality must be false");
                }
                if (graphOptions != null && graphOptions.enableAudioModality()) {
                    throw new QuipException(
                            QuipException.Status.UNSUPPORTED,
                            "sound is not supported; enableAudioModality must be false");
                }
                return new LlmInferenceSessionOptions(copy());
            }
        }
    }
}
