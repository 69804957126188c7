"""Every request passes these on its way to a call, and every answer on its way back."""
