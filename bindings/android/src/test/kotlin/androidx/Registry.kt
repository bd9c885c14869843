/* See Lifecycle.kt. */
package androidx.test.platform.app

import android.app.Instrumentation
import android.os.Bundle

object InstrumentationRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(instrumentation: Instrumentation?, arguments: Bundle) {}
}
