@file:Suppress("DEPRECATION") // levels that only older devices send

package com.quip

import android.app.Activity
import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.content.res.Configuration
import android.os.Build
import android.os.Bundle
import android.os.PowerManager

/** Sets [Model.background] on signals of the system, until it is closed. */
internal class SystemSignals(context: Context, private val model: Model) :
    AutoCloseable, ComponentCallbacks2, Application.ActivityLifecycleCallbacks {
    private val app = context.applicationContext as Application
    private val power = app.getSystemService(Context.POWER_SERVICE) as? PowerManager
    private var isLow = false
    private var isHot = false
    private val onThermal: Any? = if (Build.VERSION.SDK_INT >= 29) listenToHeat() else null

    init {
        app.registerComponentCallbacks(this)
        app.registerActivityLifecycleCallbacks(this)
    }

    private fun listenToHeat(): Any? {
        if (Build.VERSION.SDK_INT < 29 || power == null) return null
        val listener = PowerManager.OnThermalStatusChangedListener { status ->
            isHot = status >= PowerManager.THERMAL_STATUS_SEVERE
            update()
        }
        power.addThermalStatusListener(listener)
        return listener
    }

    private fun update() {
        model.background = isLow || isHot
    }

    override fun onTrimMemory(level: Int) {
        isLow = isLow(level)
        update()
    }

    @Deprecated("Android replaced it by onTrimMemory")
    override fun onLowMemory() = onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)

    /** The app is visible again. */
    override fun onActivityStarted(activity: Activity) {
        isLow = false
        update()
    }

    override fun close() {
        app.unregisterComponentCallbacks(this)
        app.unregisterActivityLifecycleCallbacks(this)
        if (Build.VERSION.SDK_INT >= 29 && onThermal is PowerManager.OnThermalStatusChangedListener)
            power?.removeThermalStatusListener(onThermal)
    }

    override fun onConfigurationChanged(newConfig: Configuration) {}
    override fun onActivityCreated(activity: Activity, savedInstanceState: Bundle?) {}
    override fun onActivityResumed(activity: Activity) {}
    override fun onActivityPaused(activity: Activity) {}
    override fun onActivityStopped(activity: Activity) {}
    override fun onActivitySaveInstanceState(activity: Activity, outState: Bundle) {}
    override fun onActivityDestroyed(activity: Activity) {}

    companion object {
        /** Running low, running critically low, or not visible; not "running moderately low". */
        fun isLow(level: Int): Boolean = level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_LOW
    }
}
