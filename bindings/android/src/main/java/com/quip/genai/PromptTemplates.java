package com.quip.genai;

/** The text around each role's text. All empty: text is passed on as it is. */
public final class PromptTemplates {
    private final Builder values;

    private PromptTemplates(Builder values) {
        this.values = values;
    }

    public static Builder builder() {
        return new Builder();
    }

    public Builder toBuilder() {
        return values.copy();
    }

    public String userPrefix() {
        return values.userPrefix;
    }

    public String userSuffix() {
        return values.userSuffix;
    }

    public String modelPrefix() {
        return values.modelPrefix;
    }

    public String modelSuffix() {
        return values.modelSuffix;
    }

    public String systemPrefix() {
        return values.systemPrefix;
    }

    public String systemSuffix() {
        return values.systemSuffix;
    }

    public static final class Builder {
        private String userPrefix = "";
        private String userSuffix = "";
        private String modelPrefix = "";
        private String modelSuffix = "";
        private String systemPrefix = "";
        private String systemSuffix = "";

        private Builder() {}

        private Builder copy() {
            return new Builder()
                    .setUserPrefix(userPrefix)
                    .setUserSuffix(userSuffix)
                    .setModelPrefix(modelPrefix)
                    .setModelSuffix(modelSuffix)
                    .setSystemPrefix(systemPrefix)
                    .setSystemSuffix(systemSuffix);
        }

        public Builder setUserPrefix(String text) {
            userPrefix = text;
            return this;
        }

        public Builder setUserSuffix(String text) {
            userSuffix = text;
            return this;
        }

        public Builder setModelPrefix(String text) {
            modelPrefix = text;
            return this;
        }

        public Builder setModelSuffix(String text) {
            modelSuffix = text;
            return this;
        }

        public Builder setSystemPrefix(String text) {
            systemPrefix = text;
            return this;
        }

        public Builder setSystemSuffix(String text) {
            systemSuffix = text;
            return this;
        }

        public PromptTemplates build() {
            return new PromptTemplates(copy());
        }
    }
}
