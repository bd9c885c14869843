// The same module for Android Studio: include it in an app's settings.gradle.kts with
//     include(":quip"); project(":quip").projectDir = file("<path>/bindings/android")
// The native library is built with the NDK from the CMakeLists.txt of the repository.
plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "com.quip"
    compileSdk = 34
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("proguard.txt")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            cmake {
                arguments += listOf("-DQUIP_JNI=ON", "-DQUIP_CLI=OFF", "-DQUIP_TESTS=OFF", "-DQUIP_BENCH=OFF", "-DQUIP_WEBGPU=OFF")
                targets += "quip_jni"
            }
        }
    }
    externalNativeBuild { cmake { path = file("../../CMakeLists.txt") } }
    sourceSets["main"].java.srcDir("src/main/kotlin")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
    kotlinOptions { jvmTarget = "1.8" }
}

dependencies {
    api("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.8.1")
    api("com.google.guava:listenablefuture:1.0")
}
